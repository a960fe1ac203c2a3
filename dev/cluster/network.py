"""The pods' network: a bridge, kube-proxy for services, kube-router for network policies, and DNS."""

import json
from pathlib import Path

from dev.cluster import images
from dev.cluster.control_plane import NODE, SERVICES
from dev.cluster.machine import HOST, Machine

BRIDGE = "lobar0"
PODS = "10.90.0.0/24"
DNS = "10.91.0.10"  # the service in dns.yaml


def make_bridge() -> None:
    """Make the bridge for the pods, the only network of this namespace."""
    machine = Machine(Path(), Path())
    machine.run("ip", "link", "set", "lo", "up")
    machine.run("ip", "link", "add", BRIDGE, "type", "bridge")
    machine.run("ip", "address", "add", f"{HOST}/24", "dev", BRIDGE)
    machine.run("ip", "link", "set", BRIDGE, "up")
    machine.run("ip", "route", "add", "default", "via", HOST)  # kube-proxy requires a route
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def start(machine: Machine) -> None:
    """Start kube-proxy, kube-router and DNS, and wait until DNS is ready."""
    folder, programs = machine.folder, machine.tools / "kubernetes"
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "iptables", "clusterCIDR": PODS, "hostnameOverride": NODE, "conntrack": {"maxPerCore": 0},
        "clientConnection": {"kubeconfig": f"{folder}/admin.kubeconfig"},
    }  # fmt: skip
    (folder / "proxy.json").write_text(json.dumps(proxy))
    machine.start("proxy", programs / "kube-proxy", f"--config={folder}/proxy.json")
    machine.start(
        "policies", programs / "kube-router", "--run-router=false", "--run-service-proxy=false",
        "--enable-cni=false", f"--service-cluster-ip-range={SERVICES}",
        f"--hostname-override={NODE}", f"--kubeconfig={folder}/admin.kubeconfig",
    )  # fmt: skip
    images.build(machine, "localhost/coredns:1", programs / "coredns")
    machine.run("kubectl", "apply", "-f", Path(__file__).with_name("dns.yaml"))
    rollout = ["kubectl", "-n", "kube-system", "rollout", "status", "deployment/dns", "--timeout=1s"]
    machine.wait("DNS", lambda: machine.succeeds(*rollout))
