"""One node: kubelet on containerd, with a bridge for its pods."""

import json
from pathlib import Path

from dev.cluster.control_plane import NODE
from dev.cluster.machine import HOST, Machine
from dev.cluster.network import BRIDGE, DNS, PODS

PAUSE = "localhost/pause:1"
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
    machine.make_folder_in_memory("kubelet")  # the pods' volumes, so also MinIO's objects
    (folder / "resolv.conf").touch()
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(folder)))
    machine.start(
        "kubelet", machine.tools / "kubernetes/kubelet", f"--config={folder}/kubelet.json",
        f"--kubeconfig={folder}/kubelet.kubeconfig", f"--root-dir={folder}/kubelet",
        f"--cert-dir={folder}/kubelet-certificates", f"--hostname-override={NODE}", f"--node-ip={HOST}",
    )  # fmt: skip
    condition = "--for=condition=Ready"
    machine.wait(
        "node", lambda: machine.succeeds("kubectl", "wait", condition, f"node/{NODE}", "--timeout=1s")
    )
    gpu = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "1"}]
    machine.run(
        "kubectl", "patch", "node", NODE, "--subresource=status", "--type=json", f"-p={json.dumps(gpu)}"
    )


def _start_containerd(machine: Machine) -> None:
    folder = machine.folder
    (folder / "cni").mkdir(exist_ok=True)
    machine.make_folder_in_memory("containerd/state")
    machine.make_folder_in_memory("containerd/root/io.containerd.metadata.v1.bolt")
    addresses = {"type": "host-local", "ranges": [[{"subnet": PODS, "rangeStart": "10.90.0.10"}]],
                 "routes": [{"dst": "0.0.0.0/0"}], "dataDir": f"{folder}/addresses"}  # fmt: skip
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": addresses}
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
        "clusterDNS": [DNS], "clusterDomain": "cluster.local", "resolvConf": f"{folder}/resolv.conf",
        "cgroupDriver": "cgroupfs", "failCgroupV1": False, "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},  # works without permission to change oom_score_adj
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "0%"},
    }  # fmt: skip
