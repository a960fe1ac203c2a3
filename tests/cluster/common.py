"""What the cluster tests share: the parameters of their workflows, and how to interrupt a pod."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from dev.cluster import readme
from lobar.storage import objects
from tests.conftest import WORKFLOW
from tests.support.argo import REPOSITORY, Run, artifact, until

SUBMIT = readme.commands()[-1]  # argo submit …
GIVEN = dict(word.split("=", 1) for option, word in pairwise(SUBMIT) if option == "-p")
ROOT = GIVEN["root"]
PARAMETERS = dict(item.split("=", 1) for item in WORKFLOW) | GIVEN | {"shards": "4"}
TRAINING = {name: value for name, value in PARAMETERS.items() if name not in ("shards", "max-rejected-new")}
PREDICTING = GIVEN | {name: PARAMETERS[name] for name in ("shards", "max-rejected-new")}
CPUS = "2"
SMALL_RESOURCES = {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "1Mi"}
INFERENCE_LIBRARY = "libopenvino_intel_cpu_plugin"


def templates() -> list[dict[str, Any]]:
    """The templates of the WorkflowTemplate, as in its file."""
    text = (REPOSITORY / "workflows/lobar.yaml").read_text()
    return list(yaml.safe_load(text)["spec"]["templates"])


def submission(name: str) -> bytes:
    return objects.read(f"{ROOT}/predictions/{name}/submission.csv")


def summary(run: Run) -> str:
    """The text that a workflow's exit handler made of it."""
    return objects.read(f"{ROOT}/{artifact(run.attempts_at_exit()[-1], 'summary')}").decode()


def run_locally(module: str, *arguments: str) -> None:
    """Run a module outside the cluster."""
    # as many threads for training as in the pod: floating-point sums depend on their number
    environment = {**os.environ, "LOBAR_CPUS": CPUS}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def suspend_shard(prediction: str, number: int) -> int:
    """Wait for the job of a prediction's shard to load its network, suspend it, and return its process id."""

    def loaded() -> int:
        process = find_job(f"--prediction={ROOT}/predictions/{prediction}", f"--shard={number}")
        with suppress(OSError):  # it may end during the search
            if process and INFERENCE_LIBRARY in Path(f"/proc/{process}/maps").read_text():
                os.kill(process, signal.SIGSTOP)
                return process
        return 0

    return int(until("a shard that has loaded its network", loaded, every=0.02))


def suspend_after_first_epoch(model: str) -> int:
    """Wait for the first checkpoint of a model, suspend its training, and return the process id."""
    process = until("the training", lambda: find_job("train", f"--out={model}"))
    checkpoints = f"{model}/checkpoints"
    until("the first epoch", lambda: list(objects.list_objects(checkpoints)), every=0.05)
    os.kill(process, signal.SIGSTOP)
    return int(process)


def find_job(*arguments: str) -> int:
    """The process id of the job that runs with these arguments; 0 if there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        words = _words(folder)
        if words and words[0].endswith("python") and set(arguments) <= set(words):
            return int(folder.name)
    return 0


def kill_sidecar(process: int) -> None:
    """Kill the container that Argo adds to a pod of a job, and that stores the job's outputs."""
    pod = _pod_folder(process)
    sidecars = [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if _words(folder)[:2] == ["argoexec", "wait"] and _pod_folder(int(folder.name)) == pod
    ]
    assert len(sidecars) == 1
    os.kill(sidecars[0], signal.SIGKILL)


def _pod_folder(process: int) -> str:
    """The control group of a process's pod, which is the parent of its container's."""
    lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    (group,) = (line.split(":", 2)[2] for line in lines if "memory" in line.split(":")[1].split(","))
    return str(Path(group).parent)


def _words(folder: Path) -> list[str]:
    """The command line of a process; empty if it has ended."""
    try:
        return (folder / "cmdline").read_text().split("\0")
    except OSError:
        return []


def resume_until_end(process: int) -> None:
    """Resume a suspended job once its SIGTERM is pending, so it cannot finish first; wait for its end."""
    until("the signal of the eviction", lambda: _is_pending(process, signal.SIGTERM), 60, every=0.02)
    os.kill(process, signal.SIGCONT)
    until("the end of the job", lambda: not Path(f"/proc/{process}").exists(), 30, every=0.02)


def _is_pending(process: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    (pending,) = (line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending, 16) >> (number - 1) & 1)


def pod_name(run: Run, task: str) -> str:
    """The name of the running pod of a task."""
    return str(run.running(task)["metadata"]["name"])
