"""Runs a workflow file on this machine: every step is a process with the command that its pod would run."""

import logging
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Annotated

import typer

from lobar.core.concurrency import cpus
from lobar.core.errors import InputError, LobarError, OutsideError
from lobar.workflow.steps import RETRY_LIMIT, Manifest, Step, read

KILLED = 128 + signal.SIGKILL
RETRIED = (OutsideError.status, 128 + signal.SIGTERM, KILLED)
BACKOFF_SECONDS = (1, 2, 4, 8, 15)
GRACE_SECONDS = 30.0  # what Kubernetes gives a pod between SIGTERM and SIGKILL

log = logging.getLogger(__name__)


class StepFailedError(LobarError):
    """A step failed or did not write its output parameters; the runner exits with the step's status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class StepResult:
    """The exit status of a process, its last line on stderr, and its lines on stdout."""

    status: int
    message: str
    stdout: tuple[str, ...] = ()


@dataclass
class TaskResult:
    """The steps of a task, their stdout by name in the order in which they ended, and how long all took."""

    name: str
    steps: tuple[Step, ...]
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    stdout: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """For the closing summary: name, time, and the stdout of the step that ended last."""
        count = f"  {len(self.steps)} steps, output of the last:" if len(self.steps) > 1 else ""
        yield f"{self.name:18}" + (f"{self.seconds:8.1f} s{count}" if self.steps else "   skipped")
        for line in [*self.stdout.values()][-1] if self.stdout else ():
            yield f"    {line}"


class Runner:
    """Runs the steps of a workflow as processes, up to `parallel` at the same time."""

    def __init__(self, parallel: int, grace: float = GRACE_SECONDS) -> None:
        self.parallel = parallel
        self.grace = grace
        self.stopping = threading.Event()
        self.running: set[subprocess.Popen[str]] = set()
        self.lock = threading.Lock()

    def run(self, manifest: Manifest) -> list[TaskResult]:
        """Run every task after the tasks that it depends on.

        Raises StepFailedError when a step fails: no step starts after it, and running steps are stopped.
        """
        tasks = {task.name: task for task in manifest.tasks}
        order = TopologicalSorter({task.name: task.needs for task in manifest.tasks})
        order.prepare()
        results: dict[str, TaskResult] = {}
        outputs: dict[str, str] = {}
        pending: dict[Future[StepResult], tuple[TaskResult, Step]] = {}
        # the end of the block waits, so that no step logs after the last line
        with ThreadPoolExecutor(self.parallel) as pool:
            try:
                while order.is_active():
                    for name in order.get_ready():
                        steps = tasks[name].expand(outputs)
                        results[name] = TaskResult(name, steps)
                        share = max(1, cpus() // max(1, min(self.parallel, len(steps))))  # of the CPUs
                        for step in steps:
                            pending[pool.submit(self._step, step, share)] = (results[name], step)
                        if not steps:
                            order.done(name)
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        task, step = pending.pop(future)
                        outputs |= _outputs(step, future.result())
                        task.stdout[step.name] = future.result().stdout
                        task.seconds = time.monotonic() - task.started
                        if len(task.stdout) == len(task.steps):
                            order.done(task.name)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                self.stop()
        return list(results.values())

    def _step(self, step: Step, share: int) -> StepResult:
        """Run a step, and again while its retryStrategy allows it, with shorter waits than on a cluster."""
        started = time.monotonic()
        log.info("[%s] %s", step.name, shlex.join(step.command))
        env = {**os.environ, **step.env} | {name: str(share) for name in step.cpu_variables}
        for attempt in range(1 + RETRY_LIMIT):
            kills_before = _out_of_memory_kills()
            result = self._process(step, env)
            # like the cluster's "unless OOM"; the kernel does not report which process it was
            out_of_memory = result.status == KILLED and _out_of_memory_kills() > kills_before
            may_help = step.retries and result.status in RETRIED and not out_of_memory
            if not may_help or attempt == RETRY_LIMIT or self.stopping.is_set():
                break
            log.info("[%s] exit %d: %s; trying again", step.name, result.status, result.message)
            if self.stopping.wait(BACKOFF_SECONDS[attempt]):
                break
        for line in result.stdout if result.status else ():  # there will be no closing summary to show it
            log.info("[%s] %s", step.name, line)
        outcome = f"failed with exit {result.status}" if result.status else "done"
        log.info("[%s] %s after %.1f s", step.name, outcome, time.monotonic() - started)
        return result

    def _process(self, step: Step, env: Mapping[str, str]) -> StepResult:
        """Run a step's command once, and log its stderr line by line."""
        message = ""
        with tempfile.TemporaryFile("w+", errors="replace") as stdout:
            try:
                with self._started(step, env, stdout) as process:
                    for line in process.stderr or ():
                        log.info("[%s] %s", step.name, line.rstrip())
                        message = line.strip().removeprefix("error: ") or message
                    status = process.wait()
            except OSError as error:
                return StepResult(InputError.status, f"cannot start {step.command[0]!r}: {error.strerror}")
            except OutsideError as error:
                return StepResult(error.status, str(error))
            stdout.seek(0)
            lines = tuple(stdout.read().splitlines())
        status = status if status >= 0 else 128 - status
        return StepResult(status, message or f"exit {status}, nothing on stderr", lines)

    @contextmanager
    def _started(
        self, step: Step, env: Mapping[str, str], stdout: IO[str]
    ) -> Iterator[subprocess.Popen[str]]:
        with self.lock:
            if self.stopping.is_set():
                raise OutsideError("not started, because the run is being stopped")
            # its own session: Ctrl-C must reach only the runner, which then stops the steps
            process = subprocess.Popen(
                step.command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
                text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
            self.running.add(process)
        try:
            with process:
                yield process
        finally:
            with self.lock:
                self.running.discard(process)

    def stop(self) -> None:
        """End all processes: SIGTERM, then SIGKILL after `grace` seconds or at once if interrupted again."""
        self.stopping.set()
        with self.lock:
            processes = list(self.running)
        try:
            for process in processes:
                process.terminate()
            deadline = time.monotonic() + self.grace
            while self.running and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            for process in list(self.running):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _out_of_memory_kills() -> int:
    """Number of processes that the kernel killed for memory since boot; 0 if it does not report it."""
    with suppress(OSError, KeyError):
        return int(dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())["oom_kill"])
    return 0


def _outputs(step: Step, result: StepResult) -> dict[str, str]:
    """The output parameters of a step; StepFailedError if it failed or one of them cannot be read."""
    if result.status:
        raise StepFailedError(f"{step.name}: {result.message}", result.status)
    try:
        return {name: path.read_text().removesuffix("\n") for name, path in step.outputs.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise StepFailedError(f"{step.name}: cannot read an output parameter: {error}", 1) from error


def dry_run_lines(manifest: Manifest) -> Iterator[str]:
    """The tasks in order, their dependencies and their commands."""
    yield manifest.name
    for task in manifest.tasks:
        yield task.name + (f"  (after {', '.join(task.needs)})" if task.needs else "")
        for step in task.steps:
            yield f"    {shlex.join(step.command)}"


def main(
    workflow: Annotated[
        Path, typer.Argument(help="workflow file; its WorkflowTemplate is in the same folder")
    ],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE; may be repeated")] = None,
    parallel: Annotated[int, typer.Option(min=1, help="steps that may run at the same time")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the commands and run nothing")] = False,
) -> None:
    """Run a workflow file on this machine, with the commands that its pods would run."""
    given = {}
    for text in parameter or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"-p {text}: expected NAME=VALUE")
        given[name] = value
    manifest = read(workflow, given)
    if dry_run:
        typer.echo("\n".join(dry_run_lines(manifest)))
        return
    for step in (step for task in manifest.tasks for step in task.steps):
        if step.command[1:2] == ("-m",) and find_spec(step.command[2]) is None:
            raise InputError(f"{step.name}: no module {step.command[2]!r}; run in the repository's root")
    started = time.monotonic()
    results = Runner(parallel).run(manifest)
    typer.echo(f"{manifest.name}: all done in {time.monotonic() - started:.1f} s")
    typer.echo("\n".join(line for result in results for line in result.lines()))
