"""The runner on small workflows with a stub as their command."""

import re
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml

from lobar.core.errors import InputError
from lobar.workflow import runner, steps
from tests.support.stubs import Bench


def test_tasks_run_after_those_they_depend_on(bench: Bench) -> None:
    bench.task("c", depends="a && b")
    bench.task("b", depends="a")
    bench.task("a")
    bench.run()
    assert bench.noted() == ["start a", "end a", "start b", "end b", "start c", "end c"]


def test_independent_tasks_run_at_the_same_time(bench: Bench) -> None:
    bench.task("a", given={"seconds": "0.5"})
    bench.task("b", given={"seconds": "0.5"})
    bench.run(parallel=2)
    assert {*bench.noted()[:2]} == {"start a", "start b"}


@pytest.mark.parametrize(("parallel", "at_once"), [(1, 1), (3, 3)])
def test_shards_run_in_parallel_up_to_the_limit(bench: Bench, parallel: int, at_once: int) -> None:
    bench.task("s", withSequence={"count": "4"}, given={"name": "s{{item}}", "seconds": "0.3"})
    bench.task("after", depends="s")
    bench.run(parallel)
    running, most = 0, 0
    for line in bench.noted():
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    assert most == at_once
    assert {line for line in bench.noted()[:-2] if line.startswith("end")} == {f"end s{k}" for k in range(4)}
    assert bench.noted()[-2:] == ["start after", "end after"]


def test_items_are_written_in_the_given_format(bench: Bench) -> None:
    bench.task("s", withSequence={"count": 2, "format": "%03d"}, given={"name": "s{{item}}"})
    assert [step.command[3] for step in bench.read().tasks[0].steps] == ["s000", "s001"]


def test_no_shards_are_done_at_once(bench: Bench) -> None:
    bench.task("s", withSequence={"count": 0})
    bench.task("after", depends="s")
    bench.run()
    assert bench.noted() == ["start after", "end after"]


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
    assert "start later" not in bench.noted()
    assert "start waiting" not in bench.noted()
    assert "end slow" not in bench.noted()


def test_queued_shards_do_not_start_after_a_failure(bench: Bench) -> None:
    bench.task("s", withSequence={"count": 20}, given={"name": "s{{item}}", "seconds": "0.05"})
    bench.statuses("s0", 2)
    with pytest.raises(runner.StepFailedError, match=r"s\(0\): s0 went wrong") as failed:
        bench.run(parallel=1)
    assert failed.value.status == 2
    assert bench.noted() == ["start s0", "end s0"]


@pytest.mark.parametrize("status", [75, -signal.SIGTERM, -signal.SIGKILL])
def test_retries_where_it_may_help(bench: Bench, status: int) -> None:
    bench.template["retryStrategy"] = steps.RETRY
    bench.task("a")
    bench.statuses("a", status, status, 0)
    bench.run()
    assert bench.noted().count("start a") == 3


@pytest.mark.parametrize("status", [1, 2, 64])
def test_does_not_retry_where_it_cannot_help(bench: Bench, status: int) -> None:
    bench.template["retryStrategy"] = steps.RETRY
    bench.task("a")
    bench.statuses("a", status, 0)
    with pytest.raises(runner.StepFailedError) as failed:
        bench.run()
    assert failed.value.status == status
    assert bench.noted().count("start a") == 1


def test_does_not_retry_what_was_killed_for_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert bench.noted().count("start a") == 1 + steps.RETRY_LIMIT


def test_without_a_retry_strategy_nothing_is_retried(bench: Bench) -> None:
    bench.task("a")
    bench.statuses("a", 75)
    with pytest.raises(runner.StepFailedError):
        bench.run()
    assert bench.noted().count("start a") == 1


def test_sigterm_ends_the_steps_and_lets_them_save(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAVING_SECONDS", "1")
    bench.task("s", withSequence={"count": 3}, given={"name": "s{{item}}", "seconds": "30"})
    ran = bench.start("--parallel", "2")
    bench.wait_for("start s0")
    bench.wait_for("start s1")
    ran.terminate()
    _, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 75
    assert "run the same command again" in stderr.splitlines()[-1]
    assert sorted(bench.noted())[-2:] == ["interrupted s0", "interrupted s1"]


def test_ctrl_c_ends_the_steps(bench: Bench) -> None:
    bench.task("a", given={"seconds": "30"})
    ran = bench.start()
    bench.wait_for("start a")
    ran.send_signal(signal.SIGINT)
    _, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 75
    assert stderr.splitlines()[-1] == "error: interrupted (SIGINT); run the same command again to continue"
    assert "interrupted a" in bench.noted()


def test_what_does_not_stop_is_killed(bench: Bench) -> None:
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
    with pytest.raises(runner.StepFailedError, match="bad: exit 1, without a word"):
        runner.Runner(2, grace=0.3).run(bench.read())
    assert time.monotonic() - began < 10


def test_a_command_that_is_not_there_is_named(bench: Bench) -> None:
    bench.template["container"]["command"] = ["no-such-program"]
    bench.task("a")
    with pytest.raises(runner.StepFailedError, match="a: cannot start 'no-such-program'") as failed:
        bench.run()
    assert failed.value.status == 2


def test_summary_tells_each_step_and_the_last_shard(bench: Bench) -> None:
    bench.task("a", given={"said": "made a"})
    bench.task(
        "s", depends="a", withSequence={"count": 3}, given={"name": "s{{item}}", "said": "made {{item}}"}
    )
    ran = bench.start("--parallel", "3")
    stdout, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 0
    lines = [re.sub(r" +[\d.]+ s\b", " N s", line) for line in stdout.splitlines()]
    assert re.fullmatch(r"test-[0-9a-f]{8}: all done in N s", lines[0])
    assert lines[1:] == ["a N s", "    made a", "s N s  3 steps, of which the last says:", "    made 2"]
    assert re.search(r"^\[s\(1\)\] done after", stderr, re.MULTILINE)


def test_stderr_of_a_step_is_handed_on_with_its_name(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
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
    assert alone.said["alone"] == (f"kept alone 8 {Path.cwd()}",)
    assert shards.said["s(4)"] == (f"kept s 2 {Path.cwd()}",)


def test_parameters_come_from_the_command_else_arguments_else_defaults(bench: Bench) -> None:
    bench.document["spec"]["arguments"] = {"parameters": [{"name": "root", "value": "here"}]}
    bench.document["spec"]["templates"][0]["inputs"] = {
        "parameters": [{"name": "made", "value": "{{workflow.parameters.root}}/{{ workflow.name }}"}]
    }
    bench.task("a", given={"name": "{{inputs.parameters.made}}", "said": "{{workflow.parameters.root}}"})

    def words(**given: str) -> list[str]:
        return list(bench.read(**given).tasks[0].steps[0].command[3:])

    assert words() == [f"here/{bench.read().name}", "0", "here"]
    assert words(root="there") == [f"there/{bench.read(root='there').name}", "0", "there"]
    assert words(made="{{workflow.parameters.root}}/x") == ["here/x", "0", "here"]
    assert words(root="a=b c", made="") == ["", "0", "a=b c"]


def test_name_is_stable_and_changes_with_what_is_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.document["spec"]["arguments"] = {"parameters": [{"name": "root", "value": "here"}]}
    bench.task("a")
    name = bench.read().name
    assert re.fullmatch(r"test-[0-9a-f]{8}", name)
    assert bench.read().name == name
    assert bench.read(root="here").name == name
    assert bench.read(root="there").name != name
    with monkeypatch.context() as patch:
        patch.setattr(steps, "code_version", lambda: "another")
        assert bench.read().name != name
    bench.template["container"]["image"] = "another"
    assert bench.read().name != name
    bench.document["metadata"]["name"] = "given"
    assert bench.read().name == "given"


def test_template_refs_are_found_beside_the_workflow(bench: Bench) -> None:
    bench.document["spec"]["templates"].remove(bench.template)
    reference = {"name": "library", "template": "stub"}
    task = bench.task("a", templateRef=reference)
    del task["template"]
    beside = {
        "kind": "WorkflowTemplate",
        "metadata": {"name": "library"},
        "spec": {"templates": [bench.template]},
    }
    library = bench.folder / "library.yaml"
    library.write_text(yaml.safe_dump_all([{"kind": "Other"}, beside]))
    bench.run()
    assert bench.noted() == ["start a", "end a"]
    name = bench.read().name
    bench.template["metadata"] = {"labels": {"a": "b"}}
    library.write_text(yaml.safe_dump(beside))
    assert bench.read().name != name
    bench.template["daemon"] = True
    library.write_text(yaml.safe_dump(beside))
    with pytest.raises(
        InputError, match=r"^library.yaml: spec.templates\[0\].daemon: the local run does not"
    ):
        bench.read()


def test_dry_run_prints_and_runs_nothing(bench: Bench) -> None:
    bench.task("a", given={"said": "two words"})
    bench.task("s", depends="a", withSequence={"count": 2}, given={"name": "s{{item}}"})
    ran = bench.start("--dry-run")
    stdout, stderr = ran.communicate(timeout=20)
    start = f"    {sys.executable} {bench.folder / 'stub.py'} {bench.log}"
    assert ran.returncode == 0
    assert stderr == ""
    assert stdout.splitlines() == [
        bench.read().name,
        "a",
        f"{start} a 0 'two words'",
        "s  (after a)",
        f"{start} s0 0 'made it'",
        f"{start} s1 0 'made it'",
    ]
    assert bench.noted() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-p", "root"], "error: -p root: NAME=VALUE is wanted"),
        (["-p", "root=x"], "error: -p root: w.yaml has no such parameter; it has none"),
    ],
)
def test_wrong_options_exit_2(bench: Bench, options: list[str], message: str) -> None:
    bench.task("a")
    ran = bench.start(*options)
    _, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 2
    assert stderr.splitlines() == [message]


# Our own files
