"""A small workflow whose steps are a stub that notes what happens to it."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from lobar.workflow import runner, steps

# Notes when it starts and ends; exits as told by a file of statuses, one for each try
STUB = """
import os, pathlib, signal, sys, time
log, name, seconds, *said = sys.argv[1:]
def note(text):
    with open(log, "a") as file:
        file.write(text + "\\n")
saving = float(os.environ.get("SAVING_SECONDS", 0))
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(saving), note("interrupted " + name), sys.exit(75)))
note("start " + name)
time.sleep(float(seconds))
statuses = pathlib.Path(log).with_name(name + ".statuses")
left = statuses.read_text().split() if statuses.exists() else []
status = int(left.pop(0)) if left else 0
statuses.write_text(" ".join(left))
for line in said:
    print(line)
note("end " + name)
if status:
    print("error: " + name + " went wrong", file=sys.stderr)
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class Bench:
    """A folder with a workflow of stubs, the ways to run it, and what the stubs noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "w.yaml"
        self.log = folder / "log"
        (folder / "stub.py").write_text(STUB)
        inputs = [{"name": "name"}, {"name": "seconds", "value": "0"}, {"name": "said", "default": "made it"}]
        arguments = ["name", "seconds", "said"]
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

    def statuses(self, name: str, *statuses: int) -> None:
        (self.folder / f"{name}.statuses").write_text(" ".join(map(str, statuses)))

    def read(self, **given: str) -> steps.Manifest:
        self.file.write_text(yaml.safe_dump(self.document))
        return steps.read(self.file, given)

    def run(self, parallel: int = 2, **given: str) -> list[runner.Done]:
        return runner.Runner(parallel, grace=5).run(self.read(**given))

    def start(self, *options: str) -> subprocess.Popen[str]:
        self.read()
        command = [sys.executable, "-m", "lobar.workflow", str(self.file), *options]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "lib")}
        return subprocess.Popen(
            command, cwd=self.folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def noted(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 10
        while text not in self.noted():
            assert time.monotonic() < until, f"{text!r} did not come; noted: {self.noted()}"
            time.sleep(0.02)
