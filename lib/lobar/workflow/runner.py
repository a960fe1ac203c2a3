"""Runs a workflow file on this machine: every step is a process with the very command that its pod would run.

python -m lobar.workflow WORKFLOW.yaml [-p NAME=VALUE …] [--parallel N] [--dry-run]
"""

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
from lobar.workflow.steps import RETRY_LIMIT, Manifest, Step, Task, read

KILLED = 128 + signal.SIGKILL
RETRIED = (OutsideError.status, 128 + signal.SIGTERM, KILLED)
BACKOFF_SECONDS = (1, 2, 4, 8, 15)
GRACE_SECONDS = 30.0  # what Kubernetes gives a pod between SIGTERM and SIGKILL

log = logging.getLogger(__name__)


class StepFailedError(LobarError):
    """A step ended with a status other than 0; the runner ends with the same."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its status, its last line on stderr, and what it said on stdout."""

    status: int
    message: str
    said: tuple[str, ...] = ()


@dataclass
class Done:
    """What is told of a task in the closing summary."""

    task: Task
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    said: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, step: Step, ended: Ended) -> bool:
        """Note a step that ended well, and tell whether it was the task's last."""
        self.said[step.name] = ended.said
        self.seconds = time.monotonic() - self.began
        return len(self.said) == len(self.task.steps)

    def lines(self) -> Iterator[str]:
        """Name and time, then what the step said on stdout; of many shards, what the last of them said."""
        steps = self.task.steps
        count = f"  {len(steps)} steps, of which the last says:" if len(steps) > 1 else ""
        yield f"{self.task.name:18}{self.seconds:8.1f} s{count}"
        for line in self.said[steps[-1].name] if steps else ():
            yield f"    {line}"


class Runner:
    """Runs the steps of a workflow as processes, some at the same time, and ends them all when told to."""

    def __init__(self, parallel: int, grace: float = GRACE_SECONDS) -> None:
        self.parallel = parallel
        self.grace = grace
        self.stopping = threading.Event()
        self.running: set[subprocess.Popen[str]] = set()
        self.lock = threading.Lock()

    def run(self, manifest: Manifest) -> list[Done]:
        """Run every task after those it waits for, up to `parallel` steps at a time.

        Raises StepFailedError at the first step that fails: no step starts after it, running ones are ended.
        """
        tasks = {task.name: task for task in manifest.tasks}
        order = TopologicalSorter({task.name: task.needs for task in manifest.tasks})
        order.prepare()
        done: dict[str, Done] = {}
        pending: dict[Future[Ended], tuple[Done, Step]] = {}
        with self._pool() as pool:
            while order.is_active():
                for name in order.get_ready():
                    done[name] = Done(tasks[name])
                    for step in tasks[name].steps:
                        future = pool.submit(self._step, step, self._share(tasks[name]))
                        pending[future] = (done[name], step)
                    if not tasks[name].steps:
                        order.done(name)
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    of_task, step = pending.pop(future)
                    ended = future.result()
                    if ended.status:
                        raise StepFailedError(f"{step.name}: {ended.message}", ended.status)
                    if of_task.add(step, ended):
                        order.done(of_task.task.name)
        return list(done.values())

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        pool = ThreadPoolExecutor(self.parallel)
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            try:
                self.stop()
            finally:
                pool.shutdown()  # so that no step says anything after the runner's last line

    def _share(self, task: Task) -> int:
        """CPUs for each of a task's steps, so that those that run at once do not crowd each other."""
        return max(1, cpus() // max(1, min(self.parallel, len(task.steps))))

    def _step(self, step: Step, share: int) -> Ended:
        """Run a step, and again while its retryStrategy says that this may help, with shorter waits."""
        began = time.monotonic()
        log.info("[%s] %s", step.name, shlex.join(step.command))
        env = {**os.environ, **step.env} | {name: str(share) for name in step.cpu_variables}
        for attempt in range(1 + RETRY_LIMIT):
            killed_before = _out_of_memory_kills()
            ended = self._process(step, env)
            # like the cluster's "unless OOM"; the kernel does not tell which process it was
            out_of_memory = ended.status == KILLED and _out_of_memory_kills() > killed_before
            may_help = step.retries and ended.status in RETRIED and not out_of_memory
            if not may_help or attempt == RETRY_LIMIT or self.stopping.is_set():
                break
            log.info("[%s] exit %d: %s; trying again", step.name, ended.status, ended.message)
            if self.stopping.wait(BACKOFF_SECONDS[attempt]):
                break
        for line in ended.said if ended.status else ():  # the closing summary, which shows it, will not come
            log.info("[%s] %s", step.name, line)
        word = f"failed with exit {ended.status}" if ended.status else "done"
        log.info("[%s] %s after %.1f s", step.name, word, time.monotonic() - began)
        return ended

    def _process(self, step: Step, env: Mapping[str, str]) -> Ended:
        """Run a step's command once, handing on its stderr line by line."""
        message = ""
        with tempfile.TemporaryFile("w+", errors="replace") as stdout:
            try:
                with self._started(step, env, stdout) as process:
                    for line in process.stderr or ():
                        log.info("[%s] %s", step.name, line.rstrip())
                        message = line.strip().removeprefix("error: ") or message
                    status = process.wait()
            except OSError as error:
                return Ended(InputError.status, f"cannot start {step.command[0]!r}: {error.strerror}")
            except OutsideError as error:
                return Ended(error.status, str(error))
            stdout.seek(0)
            said = tuple(stdout.read().splitlines())
        status = status if status >= 0 else 128 - status
        return Ended(status, message or f"exit {status}, without a word on stderr", said)

    @contextmanager
    def _started(
        self, step: Step, env: Mapping[str, str], stdout: IO[str]
    ) -> Iterator[subprocess.Popen[str]]:
        with self.lock:
            if self.stopping.is_set():
                raise OutsideError("not started, because the run is being stopped")
            # an own session: Ctrl-C must reach the runner alone, which then ends the steps in its own way
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
        """End all processes: SIGTERM, and SIGKILL after the grace or at once when interrupted again."""
        self.stopping.set()
        with self.lock:
            told = list(self.running)
        try:
            for process in told:
                process.terminate()
            until = time.monotonic() + self.grace
            while self.running and time.monotonic() < until:
                time.sleep(0.02)
        finally:
            for process in list(self.running):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _out_of_memory_kills() -> int:
    """How often the kernel killed a process for memory since boot; 0 where it does not tell."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def plan_lines(manifest: Manifest) -> Iterator[str]:
    """What a run would do, for --dry-run: tasks in order, what each waits for, and its commands."""
    yield manifest.name
    for task in manifest.tasks:
        yield f"{task.name}" + (f"  (after {', '.join(task.needs)})" if task.needs else "")
        for step in task.steps:
            yield f"    {shlex.join(step.command)}"


def _check_modules(manifest: Manifest) -> None:
    for step in (step for task in manifest.tasks for step in task.steps):
        if step.command[1:2] == ("-m",) and find_spec(step.command[2]) is None:
            raise InputError(
                f"{step.name}: there is no module {step.command[2]!r} here; run from the repository's root"
            )


def main(
    workflow: Annotated[
        Path, typer.Argument(help="the workflow's file; its templates are looked for beside it")
    ],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE, as for argo submit")] = None,
    parallel: Annotated[int, typer.Option(min=1, help="steps that may run at the same time")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the commands and run nothing")] = False,
) -> None:
    """Run a workflow file on this machine, with the very commands that its pods would run."""
    given = {}
    for text in parameter or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"-p {text}: NAME=VALUE is wanted")
        given[name] = value
    manifest = read(workflow, given)
    if dry_run:
        typer.echo("\n".join(plan_lines(manifest)))
        return
    _check_modules(manifest)
    began = time.monotonic()
    done = Runner(parallel).run(manifest)
    typer.echo(f"{manifest.name}: all done in {time.monotonic() - began:.1f} s")
    for of_task in done:
        typer.echo("\n".join(of_task.lines()))
