"""The runner on small workflows with a stub as their command."""

import re
import signal
import time
from pathlib import Path

import pytest

from lobar.workflow import runner, steps
from tests.support.stubs import Bench


def test_tasks_run_after_those_they_depend_on(bench: Bench) -> None:
    bench.task("c", depends="a && b")
    bench.task("b", depends="a")
    bench.task("a")
    bench.run()
    assert bench.events() == ["start a", "end a", "start b", "end b", "start c", "end c"]


def test_independent_tasks_run_at_the_same_time(bench: Bench) -> None:
    bench.task("a", given={"seconds": "0.5"})
    bench.task("b", given={"seconds": "0.5"})
    bench.run(parallel=2)
    assert {*bench.events()[:2]} == {"start a", "start b"}


@pytest.mark.parametrize(("parallel", "at_once"), [(1, 1), (3, 3)])
def test_shards_run_in_parallel_up_to_the_limit(bench: Bench, parallel: int, at_once: int) -> None:
    bench.task("s", withSequence={"count": "4"}, given={"name": "s{{item}}", "seconds": "0.3"})
    bench.task("after", depends="s")
    bench.run(parallel)
    running, most = 0, 0
    for line in bench.events():
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    assert most == at_once
    assert {line for line in bench.events()[:-2] if line.startswith("end")} == {f"end s{k}" for k in range(4)}
    assert bench.events()[-2:] == ["start after", "end after"]


def test_items_are_numbers_from_0(bench: Bench) -> None:
    bench.task("s", withSequence={"count": 2}, given={"name": "s{{item}}"})
    assert [step.command[3] for step in bench.read().tasks[0].steps] == ["s0", "s1"]


def test_a_task_without_shards_is_skipped(bench: Bench) -> None:
    bench.task("s", withSequence={"count": 0})
    bench.task("after", depends="s")
    bench.run()
    assert bench.events() == ["start after", "end after"]


def test_first_failure_stops_the_run_with_its_status_and_message(bench: Bench) -> None:
    bench.task("bad")
    bench.task("slow", given={"seconds": "30"})
    bench.task("later", depends="bad")
    bench.task("waiting", depends="slow")
    bench.statuses("bad", 3)
    ran = bench.start("--parallel", "2")
    stdout, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 3
    assert stderr.splitlines()[-1] == "error: bad: bad went wrong"
    assert stdout == ""
    assert "start later" not in bench.events()
    assert "start waiting" not in bench.events()
    assert "end slow" not in bench.events()


def test_queued_shards_do_not_start_after_a_failure(bench: Bench) -> None:
    bench.task("s", withSequence={"count": 20}, given={"name": "s{{item}}", "seconds": "0.05"})
    bench.statuses("s0", 2)
    with pytest.raises(runner.StepFailedError, match=r"s\(0\): s0 went wrong") as failed:
        bench.run(parallel=1)
    assert failed.value.status == 2
    assert bench.events() == ["start s0", "end s0"]


@pytest.mark.parametrize("status", [75, -signal.SIGTERM, -signal.SIGKILL])
def test_retries_if_it_may_help(bench: Bench, status: int) -> None:
    bench.template["retryStrategy"] = steps.RETRY
    bench.task("a")
    bench.statuses("a", status, status, 0)
    bench.run()
    assert bench.events().count("start a") == 3


@pytest.mark.parametrize("status", [1, 2, 64])
def test_does_not_retry_if_it_cannot_help(bench: Bench, status: int) -> None:
    bench.template["retryStrategy"] = steps.RETRY
    bench.task("a")
    bench.statuses("a", status, 0)
    with pytest.raises(runner.StepFailedError) as failed:
        bench.run()
    assert failed.value.status == status
    assert bench.events().count("start a") == 1


def test_does_not_retry_a_step_killed_for_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = iter(range(10))
    monkeypatch.setattr(runner, "_out_of_memory_kills", lambda: next(kills))
    bench.template["retryStrategy"] = steps.RETRY
    bench.task("a")
    bench.statuses("a", -signal.SIGKILL, 0)
    with pytest.raises(runner.StepFailedError) as failed:
        bench.run()
    assert failed.value.status == 137


def test_retries_end_at_the_limit(bench: Bench) -> None:
    bench.template["retryStrategy"] = steps.RETRY
    bench.task("a")
    bench.statuses("a", *[75] * 20)
    with pytest.raises(runner.StepFailedError) as failed:
        bench.run()
    assert failed.value.status == 75
    assert bench.events().count("start a") == 1 + steps.RETRY_LIMIT


def test_without_a_retry_strategy_nothing_is_retried(bench: Bench) -> None:
    bench.task("a")
    bench.statuses("a", 75)
    with pytest.raises(runner.StepFailedError):
        bench.run()
    assert bench.events().count("start a") == 1


def test_sigterm_stops_the_steps_and_lets_them_save(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAVING_SECONDS", "1")
    bench.task("s", withSequence={"count": 3}, given={"name": "s{{item}}", "seconds": "30"})
    ran = bench.start("--parallel", "2")
    bench.wait_for("start s0")
    bench.wait_for("start s1")
    ran.terminate()
    _, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 75
    assert "run the same command again" in stderr.splitlines()[-1]
    assert sorted(bench.events()[-2:]) == ["interrupted s0", "interrupted s1"]


def test_ctrl_c_stops_the_steps(bench: Bench) -> None:
    bench.task("a", given={"seconds": "30"})
    ran = bench.start()
    bench.wait_for("start a")
    ran.send_signal(signal.SIGINT)
    _, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 75
    assert stderr.splitlines()[-1] == "error: interrupted (SIGINT); run the same command again to continue"
    assert "interrupted a" in bench.events()


def test_a_step_that_does_not_stop_is_killed(bench: Bench) -> None:
    (bench.folder / "stub.py").write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).write_text('start deaf')\n"
        "time.sleep(30 if sys.argv[2] == 'deaf' else 0.5)\n"
        "sys.exit(sys.argv[2] == 'bad')\n"
    )
    bench.task("deaf")
    bench.task("bad")
    began = time.monotonic()
    with pytest.raises(runner.StepFailedError, match="bad: exit 1, nothing on stderr"):
        runner.Runner(2, grace=0.3).run(bench.read())
    assert time.monotonic() - began < 10


def test_a_missing_command_is_named(bench: Bench) -> None:
    bench.template["container"]["command"] = ["no-such-program"]
    bench.task("a")
    with pytest.raises(runner.StepFailedError, match="a: cannot start 'no-such-program'") as failed:
        bench.run()
    assert failed.value.status == 2


def test_summary_shows_each_task_and_the_shard_that_ended_last(bench: Bench) -> None:
    bench.task("a", given={"line": "output of a"})
    shard = {"name": "s{{item}}", "line": "output {{item}}", "seconds": "1e-{{item}}"}
    bench.task("s", depends="a", withSequence={"count": 3}, given=shard)
    ran = bench.start("--parallel", "3")
    stdout, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 0
    lines = [re.sub(r" +[\d.]+ s\b", " N s", line) for line in stdout.splitlines()]
    assert re.fullmatch(r"test-[0-9a-f]{8}: all done in N s", lines[0])
    assert lines[1:] == ["a N s", "    output of a", "s N s  3 steps, output of the last:", "    output 0"]
    assert re.search(r"^\[s\(1\)\] done after", stderr, re.MULTILINE)


def test_stderr_of_a_step_is_logged_with_its_name(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    bench.template["container"] |= {
        "command": ["python", "-c"],
        "args": ["import sys; print('one', file=sys.stderr); print('two', file=sys.stderr)"],
    }
    bench.task("a")
    bench.run()
    assert {"[a] one", "[a] two"} <= {*caplog.messages}


def test_environment_is_the_runners_own_and_the_templates(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOBAR_CPUS", "8")
    monkeypatch.setenv("FROM_RUNNER", "kept")
    names = ["FROM_RUNNER", "LITERAL", "LOBAR_CPUS"]
    bench.template["container"] |= {
        "command": ["python", "-c"],
        "args": [f"import os; print(*(os.environ[name] for name in {names}), os.getcwd())"],
        "env": [
            {"name": "LITERAL", "value": "{{inputs.parameters.name}}"},
            {"name": "LOBAR_CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "store", "key": "x"}}},
        ],
    }
    bench.task("alone")
    bench.task("s", withSequence={"count": 5})
    alone, shards = bench.run(parallel=4)
    assert alone.stdout["alone"] == (f"kept alone 8 {Path.cwd()}",)
    assert shards.stdout["s(4)"] == (f"kept s 2 {Path.cwd()}",)
