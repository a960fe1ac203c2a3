"""One node: kubelet on containerd, a bridge for its pods, and kube-proxy."""

import json
import tempfile
from hashlib import sha256
from pathlib import Path

from dev.cluster.control_plane import NODE
from dev.cluster.machine import HOST, Machine

PAUSE = "localhost/pause:1"
PODS = "10.90.0.0/24"
CONTAINERD = """version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
"""


def start(machine: Machine) -> None:
    """Start the node and wait until it is ready; it declares a GPU that exists only for the scheduler."""
    folder = machine.folder
    _start_containerd(machine)
    (folder / "resolv.conf").write_text(f"nameserver {HOST}\n")
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(folder)))
    machine.start(
        "kubelet", machine.tools / "kubernetes/kubelet", f"--config={folder}/kubelet.json",
        f"--kubeconfig={folder}/kubelet.kubeconfig", f"--root-dir={folder}/kubelet",
        f"--cert-dir={folder}/kubelet-certificates", f"--hostname-override={NODE}", f"--node-ip={HOST}",
    )  # fmt: skip
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "iptables", "clusterCIDR": PODS, "hostnameOverride": NODE, "conntrack": {"maxPerCore": 0},
        "clientConnection": {"kubeconfig": f"{folder}/admin.kubeconfig"},
    }  # fmt: skip
    (folder / "proxy.json").write_text(json.dumps(proxy))
    machine.start("proxy", machine.tools / "kubernetes/kube-proxy", f"--config={folder}/proxy.json")
    condition = "--for=condition=Ready"
    machine.wait(
        "node", lambda: machine.succeeds("kubectl", "wait", condition, f"node/{NODE}", "--timeout=1s")
    )
    gpu = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "1"}]
    machine.run(
        "kubectl", "patch", "node", NODE, "--subresource=status", "--type=json", f"-p={json.dumps(gpu)}"
    )


def make_network() -> None:
    """Make the bridge for the pods, the only network of this namespace."""
    machine = Machine(Path(), Path())
    machine.run("ip", "link", "set", "lo", "up")
    machine.run("ip", "link", "add", "lobar0", "type", "bridge")
    machine.run("ip", "address", "add", f"{HOST}/24", "dev", "lobar0")
    machine.run("ip", "link", "set", "lobar0", "up")
    machine.run("ip", "route", "add", "default", "via", HOST)  # kube-proxy requires a route
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def load(machine: Machine, image: str, name: str = "") -> None:
    """Load an image from podman's store into the node, under another name if `name` is given."""
    ctr = ["ctr", "--address", f"{machine.folder}/containerd.sock", "--namespace", "k8s.io", "images"]
    loaded = machine.folder / "containerd" / f"{sha256(image.encode()).hexdigest()[:12]}.loaded"
    image_id = machine.run("podman", "image", "inspect", "--format={{.Id}}", image)
    if loaded.exists() and loaded.read_text() == image_id:
        return
    with tempfile.TemporaryDirectory(dir=machine.folder) as scratch:
        machine.run("podman", "save", "--quiet", "--format=docker-archive", "-o", f"{scratch}/image", image)
        machine.run(*ctr, "import", f"{scratch}/image")
    if name:
        machine.run(*ctr, "tag", "--force", image, name)
    loaded.write_text(image_id)


def build(machine: Machine, name: str, program: Path) -> None:
    """Build an image that contains and runs one static program, and load it under `name`."""
    with tempfile.TemporaryDirectory(dir=machine.folder) as scratch:
        lines = [
            "FROM scratch",
            "ENV PATH=/bin",
            "USER 8737",
            f"COPY {program.name} /bin/",
            f'ENTRYPOINT ["{program.name}"]',
        ]
        Path(scratch, "Dockerfile").write_text("\n".join(lines) + "\n")
        Path(scratch, program.name).hardlink_to(program)
        machine.run("podman", "build", "--quiet", "--tag", name, scratch)
    load(machine, name)


def _start_containerd(machine: Machine) -> None:
    folder = machine.folder
    (folder / "cni").mkdir(exist_ok=True)
    (folder / "containerd").mkdir(exist_ok=True)
    addresses = {"type": "host-local", "ranges": [[{"subnet": PODS, "rangeStart": "10.90.0.10"}]],
                 "routes": [{"dst": "0.0.0.0/0"}], "dataDir": f"{folder}/addresses"}  # fmt: skip
    bridge = {"type": "bridge", "bridge": "lobar0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    network = {"cniVersion": "0.4.0", "name": "lobar", "plugins": [bridge]}
    (folder / "cni/lobar.conflist").write_text(json.dumps(network))
    (folder / "containerd.toml").write_text(CONTAINERD.format(folder=folder, pause=PAUSE))
    machine.start("containerd", "containerd", "--config", folder / "containerd.toml")
    ctr = ["ctr", "--address", f"{folder}/containerd.sock", "version"]
    machine.wait("containerd", lambda: machine.succeeds(*ctr))


def _kubelet(folder: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock", "podLogsDir": f"{folder}/pods",
        "address": HOST, "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},  # reachable only from this network namespace
        "clusterDNS": [HOST], "clusterDomain": "cluster.local", "resolvConf": f"{folder}/resolv.conf",
        "cgroupDriver": "cgroupfs", "failCgroupV1": False, "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},  # works without permission to change oom_score_adj
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "0%"},
    }  # fmt: skip
