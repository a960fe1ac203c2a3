"""A small workflow whose steps are a stub that records its events."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from lobar.workflow import runner, steps

# Records its start and end; exits with the next status of a file of statuses, one for each attempt
STUB = """
import os, pathlib, signal, sys, time
log, name, seconds, *lines = sys.argv[1:]
def record(event):
    with open(log, "a") as file:
        file.write(event + "\\n")
saving = float(os.environ.get("SAVING_SECONDS", 0))
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(saving), record("interrupted " + name), sys.exit(75)))
record("start " + name)
time.sleep(float(seconds))
statuses = pathlib.Path(log).with_name(name + ".statuses")
left = statuses.read_text().split() if statuses.exists() else []
status = int(left.pop(0)) if left else 0
statuses.write_text(" ".join(left))
for line in lines:
    print(line)
record("end " + name)
if status:
    print("error: " + name + " went wrong", file=sys.stderr)
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class Bench:
    """A folder with a workflow of stubs, the ways to run it, and the events of the stubs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "w.yaml"
        self.log = folder / "log"
        (folder / "stub.py").write_text(STUB)
        inputs = [{"name": "name"}, {"name": "seconds", "value": "0"}, {"name": "line", "default": "hello"}]
        arguments = ["name", "seconds", "line"]
        self.template: dict[str, Any] = {
            "name": "stub",
            "inputs": {"parameters": inputs},
            "container": {
                "command": ["python", str(folder / "stub.py")],
                "args": [str(self.log), *(f"{{{{inputs.parameters.{name}}}}}" for name in arguments)],
            },
        }
        self.document: dict[str, Any] = {
            "kind": "Workflow",
            "metadata": {"generateName": "test-"},
            "spec": {
                "entrypoint": "main",
                "templates": [{"name": "main", "dag": {"tasks": []}}, self.template],
            },
        }

    def task(self, name: str, **fields: Any) -> dict[str, Any]:
        given = {"name": name, **fields.pop("given", {})}
        parameters = [{"name": key, "value": value} for key, value in given.items()]
        task = {"name": name, "template": "stub", "arguments": {"parameters": parameters}, **fields}
        self.document["spec"]["templates"][0]["dag"]["tasks"].append(task)
        return task

    def producer(self, name: str, text: str | None, **fields: Any) -> None:
        """Add a task that writes `text` as its output parameter `x`; None: it writes no file."""
        file = str(self.folder / f"{name}.output")
        code = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
        words = ["-c", "pass"] if text is None else ["-c", code, file, text]
        outputs = {"parameters": [{"name": "x", "valueFrom": {"path": file}}]}
        template = {
            "name": f"{name}-template",
            "container": {"command": ["python"], "args": words},
            "outputs": outputs,
        }
        self.document["spec"]["templates"].append(template)
        task = {"name": name, "template": template["name"], **fields}
        self.document["spec"]["templates"][0]["dag"]["tasks"].append(task)

    def statuses(self, name: str, *statuses: int) -> None:
        (self.folder / f"{name}.statuses").write_text(" ".join(map(str, statuses)))

    def read(self, **given: str) -> steps.Manifest:
        self.file.write_text(yaml.safe_dump(self.document))
        return steps.read(self.file, given)

    def run(self, parallel: int = 2, **given: str) -> list[runner.TaskResult]:
        return runner.Runner(parallel, grace=5).run(self.read(**given))

    def start(self, *options: str) -> subprocess.Popen[str]:
        self.read()
        command = [sys.executable, "-m", "lobar.workflow", str(self.file), *options]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "lib")}
        return subprocess.Popen(
            command, cwd=self.folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def events(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 10
        while text not in self.events():
            assert time.monotonic() < deadline, f"no {text!r}; events: {self.events()}"
            time.sleep(0.02)
