"""etcd, API server, controllers and scheduler; clients use tokens from a file, not certificates."""

import json
import os
import secrets
from pathlib import Path

from dev.cluster.machine import HOST, Machine

SERVICES = "10.91.0.0/24"
NODE = "node"


def start(machine: Machine) -> None:
    """Start the control plane; write kubeconfigs for the node and the administrator, and set KUBECONFIG."""
    folder = machine.folder
    tokens = {name: secrets.token_hex(16) for name in ("admin", "kubelet")}
    (folder / "tokens.csv").write_text(
        f"{tokens['admin']},admin,admin,system:masters\n{tokens['kubelet']},system:node:{NODE},{NODE},system:nodes\n"
    )
    machine.run("openssl", "genrsa", "-out", folder / "accounts.key", "2048")
    machine.make_folder_in_memory("etcd")
    machine.start("etcd", "etcd", "--data-dir", folder / "etcd")
    machine.start(
        "apiserver", machine.tools / "kubernetes/kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379", f"--cert-dir={folder}/certificates",
        f"--bind-address={HOST}", f"--advertise-address={HOST}", "--secure-port=6443",
        f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction", f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder}/accounts.key",
        f"--service-account-signing-key-file={folder}/accounts.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--feature-gates=WatchList=false",  # requires a newer etcd than Debian's
    )  # fmt: skip
    for name, token in tokens.items():
        _write_kubeconfig(folder / f"{name}.kubeconfig", folder / "certificates/apiserver.crt", token)
    admin = folder / "admin.kubeconfig"
    os.environ["KUBECONFIG"] = str(admin)
    machine.wait("API server", lambda: machine.succeeds("kubectl", "get", "--raw", "/readyz"))
    machine.start(
        "controllers", machine.tools / "kubernetes/kube-controller-manager",
        f"--kubeconfig={admin}", f"--service-account-private-key-file={folder}/accounts.key",
        f"--root-ca-file={folder}/certificates/apiserver.crt", "--use-service-account-credentials",
        "--leader-elect=false",
    )  # fmt: skip
    machine.start(
        "scheduler",
        machine.tools / "kubernetes/kube-scheduler",
        f"--kubeconfig={admin}",
        "--leader-elect=false",
    )


def _write_kubeconfig(path: Path, authority: Path, token: str) -> None:
    cluster = {"server": f"https://{HOST}:6443", "certificate-authority": str(authority)}
    path.touch(mode=0o600)
    path.write_text(
        json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })
    )  # fmt: skip
