"""A workflow file and its parameters: templates, enums, output parameters, conditions, and the dry run."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lobar.core.errors import InputError
from lobar.workflow import runner, steps
from tests.support.stubs import Bench


def test_parameters_come_from_the_command_else_arguments_else_defaults(bench: Bench) -> None:
    bench.document["spec"]["arguments"] = {"parameters": [{"name": "root", "value": "here"}]}
    bench.document["spec"]["templates"][0]["inputs"] = {
        "parameters": [{"name": "path", "value": "{{workflow.parameters.root}}/{{ workflow.name }}"}]
    }
    bench.task("a", given={"name": "{{inputs.parameters.path}}", "line": "{{workflow.parameters.root}}"})

    def words(**given: str) -> list[str]:
        return list(bench.read(**given).tasks[0].steps[0].command[3:])

    assert words() == [f"here/{bench.read().name}", "0", "here"]
    assert words(root="there") == [f"there/{bench.read(root='there').name}", "0", "there"]
    assert words(path="{{workflow.parameters.root}}/x") == ["here/x", "0", "here"]
    assert words(root="a=b c", path="") == ["", "0", "a=b c"]


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


def _into_library(bench: Bench, **fields: Any) -> Path:
    """Move everything but the arguments to a WorkflowTemplate in another file."""
    spec = bench.document["spec"]
    bench.document["spec"] = {"workflowTemplateRef": {"name": "library"}} | {
        name: spec.pop(name) for name in ("arguments",) if name in spec
    }
    document = {
        "kind": "WorkflowTemplate",
        "metadata": {"name": "library", "labels": {"a": "b"}},
        "spec": spec | fields,
    }
    library = bench.folder / "library.yaml"
    library.write_text(yaml.safe_dump_all([{"kind": "Other"}, document]))
    return library


def test_a_workflow_template_is_found_in_the_same_folder(bench: Bench) -> None:
    bench.task("a")
    library = _into_library(bench, serviceAccountName="x", onExit="stub")
    bench.run()
    assert bench.events() == ["start a", "end a"]
    name = bench.read().name
    library.write_text(library.read_text().replace("serviceAccountName: x", "serviceAccountName: z"))
    assert bench.read().name != name
    library.write_text(library.read_text().replace("onExit:", "daemon:"))
    with pytest.raises(InputError, match=r"^library.yaml: spec.daemon: not supported by the local run"):
        bench.read()


def test_a_workflows_own_fields_have_precedence_over_its_template(bench: Bench) -> None:
    bench.task("a", given={"name": "{{workflow.parameters.x}}-{{workflow.parameters.y}}"})
    other = {"name": "other", "dag": {"tasks": [{"name": "b", "template": "own"}]}}
    command = ["echo", "{{workflow.mainEntrypoint}}", "{{workflow.parameters.y}}"]
    own = {"name": "own", "container": {"command": command}}
    bench.document["spec"]["templates"] += [other, own]
    parameters = [{"name": "x", "value": "1"}, {"name": "y", "value": "2", "description": "d"}]
    _into_library(bench, arguments={"parameters": parameters})

    def command_of(**given: str) -> tuple[str, ...]:
        return bench.read(**given).tasks[0].steps[0].command

    assert command_of()[3] == "1-2"
    bench.document["spec"]["arguments"] = {"parameters": [{"name": "y", "value": "3"}]}
    assert command_of()[3] == "1-3"
    assert command_of(x="4", y="5")[3] == "4-5"
    bench.document["spec"]["entrypoint"] = "other"
    assert command_of() == ("echo", "other", "3")
    assert command_of(y="6") == ("echo", "other", "6")


def test_templates_are_either_the_workflows_own_or_of_its_workflow_template(bench: Bench) -> None:
    bench.task("a")
    _into_library(bench)
    bench.document["spec"]["templates"] = []
    with pytest.raises(InputError, match=r"^w.yaml: spec.templates: Argo does not accept this"):
        bench.read()
    del bench.document["spec"]["templates"]
    library = bench.folder / "library.yaml"
    library.write_text(library.read_text() + "  workflowTemplateRef: {name: library}\n")
    with pytest.raises(
        InputError, match=r"^library.yaml: spec.workflowTemplateRef: Argo does not accept this"
    ):
        bench.read()


def test_two_templates_of_one_name_are_rejected(bench: Bench) -> None:
    bench.task("a")
    library = _into_library(bench)
    (bench.folder / "other.yaml").write_text(library.read_text())
    with pytest.raises(InputError, match=r"library.yaml also has a WorkflowTemplate 'library'; keep one"):
        bench.read()


def test_a_value_that_is_not_in_the_enum_exits_2(bench: Bench) -> None:
    bench.task("a", given={"name": "{{workflow.parameters.device}}"})
    parameter = {"name": "device", "value": "cpu", "enum": ["cpu", "gpu", 3]}
    _into_library(bench, arguments={"parameters": [parameter]})
    for value in ("cpu", "gpu", "3"):
        assert bench.read(device=value).tasks[0].steps[0].command[3] == value
    ran = bench.start("-p", "device=tpu")
    _, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 2
    message = "library.yaml: parameter 'device': found 'tpu'; possible values: cpu, gpu, 3"
    assert stderr.splitlines() == [f"error: {message}"]
    bench.document["spec"]["arguments"] = {"parameters": [{"name": "device", "value": "tpu"}]}
    with pytest.raises(InputError, match=message):
        bench.read()


# Output parameters and conditions

X = "{{tasks.p.outputs.parameters.x}}"


def test_an_output_parameter_is_read_after_its_task(bench: Bench) -> None:
    bench.producer("p", "two words\n\n")
    bench.task("a", depends="p", given={"name": f"a-{X}"})
    bench.task("b", depends="a", given={"name": f"{X}-b"})
    bench.run()
    assert (bench.folder / "p.output").read_text() == "two words\n\n"
    assert [line for line in bench.events() if line] == [
        "start a-two words", "end a-two words", "start two words", "-b", "end two words", "-b",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 3])
def test_the_number_of_shards_may_be_known_only_at_run_time(bench: Bench, count: int) -> None:
    bench.producer("p", f"{count}\n")
    bench.task("s", depends="p", withSequence={"count": X}, given={"name": "s{{item}}"})
    bench.task("after", depends="s")
    results = {result.name: result for result in bench.run()}
    ends = {line for line in bench.events() if line.startswith("end")}
    assert ends == {"end after", *(f"end s{number}" for number in range(count))}
    assert bench.events()[-2:] == ["start after", "end after"]
    assert [step.name for step in results["s"].steps] == [f"s({number})" for number in range(count)]
    assert next(results["s"].lines()).endswith("   skipped") == (count == 0)


def test_a_number_of_shards_that_is_no_number_stops_the_run(bench: Bench) -> None:
    bench.producer("p", "many")
    bench.task("s", depends="p", withSequence={"count": X})
    with pytest.raises(
        InputError, match=r"tasks\[1\].withSequence.count: found 'many'; expected a whole number"
    ):
        bench.run()
    assert bench.events() == []


def test_an_output_parameter_that_is_not_written_stops_the_run(bench: Bench) -> None:
    bench.producer("p", None)
    bench.task("a", depends="p")
    with pytest.raises(
        runner.StepFailedError, match=r"^p: cannot read an output parameter: .*p\.output"
    ) as failed:
        bench.run()
    assert failed.value.status == 1
    assert bench.events() == []


def test_output_parameters_are_known_to_later_tasks_only(bench: Bench) -> None:
    bench.producer("p", "1")
    bench.task("a", given={"name": X})
    with pytest.raises(InputError, match=r"tasks\[1\].arguments.parameters\[0\].value: .* has no value"):
        bench.read()


@pytest.mark.parametrize(
    ("when", "output", "runs"),
    [
        (f"{X} == 3", "3", True),
        (f"{X} == 3", "3.0", True),
        (f"{X} == 3", "4", False),
        (f"{X} != 0", "0", False),
        (f"{X} != 0", "-1", True),
        (f"'{X}' == '3'", "3", True),
        (f"{X} == '3'", "3", False),
        (f"{X}==cpu", "cpu", True),
        (f"{X} != cpu", "gpu", True),
        (f"\"{X}\" == 'two words'", "two words", True),
        ("1 == 2", "", False),
    ],
)
def test_a_task_runs_if_its_condition_is_true(bench: Bench, when: str, output: str, runs: bool) -> None:
    bench.producer("p", output)
    bench.task("a", depends="p", when=when)
    bench.task("after", depends="a")
    bench.run()
    assert bench.events() == ["start a", "end a"] * runs + ["start after", "end after"]


def test_each_shard_has_its_own_condition(bench: Bench) -> None:
    bench.task("s", withSequence={"count": 3}, when="{{item}} != 1", given={"name": "s{{item}}"})
    bench.run(parallel=1)
    assert bench.events() == ["start s0", "end s0", "start s2", "end s2"]


def test_a_condition_that_is_wrong_at_run_time_stops_the_run(bench: Bench) -> None:
    bench.producer("p", "two words")
    bench.task("a", depends="p", when=f"{X} == x")
    with pytest.raises(
        InputError, match=r"tasks\[1\].when: found 'two words == x'; the local run supports only"
    ):
        bench.run()
    assert bench.events() == []


def test_the_output_of_a_skipped_task_has_no_value(bench: Bench) -> None:
    bench.producer("q", "1")
    bench.producer("p", "1", depends="q", when="{{tasks.q.outputs.parameters.x}} == 2")
    bench.task("a", depends="p", given={"name": X})
    with pytest.raises(InputError, match=r"has no value: not declared, not supported, or of a skipped task"):
        bench.run()
    assert bench.events() == []


def test_dry_run_leaves_tags_for_what_only_a_run_knows(bench: Bench) -> None:
    bench.producer("p", "3")
    bench.task("s", depends="p", withSequence={"count": X}, given={"name": "s{{item}}"}, when=f"{X} != 0")
    bench.task("a", depends="s", given={"name": f"a-{X}"})
    ran = bench.start("--dry-run")
    stdout, stderr = ran.communicate(timeout=20)
    start = f"    {sys.executable} {bench.folder / 'stub.py'} {bench.log}"
    assert (ran.returncode, stderr) == (0, "")
    assert stdout.splitlines()[3:] == [
        "s  (after p)",
        f"{start} 's{{{{item}}}}' 0 hello",
        "a  (after s)",
        f"{start} 'a-{X}' 0 hello",
    ]
    assert bench.events() == []


def test_dry_run_prints_and_runs_nothing(bench: Bench) -> None:
    bench.task("a", given={"line": "two words"})
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
        f"{start} s0 0 hello",
        f"{start} s1 0 hello",
    ]
    assert bench.events() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-p", "root"], "error: -p root: expected NAME=VALUE"),
        (["-p", "root=x"], "error: w.yaml: there is no parameter 'root'; possible names: none"),
    ],
)
def test_wrong_options_exit_2(bench: Bench, options: list[str], message: str) -> None:
    bench.task("a")
    ran = bench.start(*options)
    _, stderr = ran.communicate(timeout=20)
    assert ran.returncode == 2
    assert stderr.splitlines() == [message]
