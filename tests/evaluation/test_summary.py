"""The page about a workflow that has ended."""

import json
from pathlib import Path

import pytest

from lobar.evaluation.record import Evaluation
from lobar.evaluation.report import summary
from lobar.storage import records
from lobar.storage.layout import Model
from tests.conftest import Run, World

NODES = [
    {
        "displayName": "predict(3:3)",
        "message": "main: Error (exit code 2): 9 of 10\nerror: a.dcm: cut off",
        "phase": "Failed",
    },
    {
        "displayName": "predict(4:4)",
        "message": "main: Error (exit code 75): error: s3://x: 503",
        "phase": "Failed",
    },
    {"displayName": "lobar", "message": "child failed", "phase": "Failed"},
    {"displayName": "predict", "message": "retryStrategy.expression evaluated to false", "phase": "Failed"},
    {"displayName": "lobar.dag", "message": "", "phase": "Failed"},
]


def test_what_a_workflow_left(world: World, run: Run, tmp_path: Path) -> None:
    model, prediction = world.place("models"), world.place("predictions")
    options = ["--workflow=lobar-full-x", "--status=Succeeded", "--seconds=3661.2", "--chain=full"]
    options += [f"--model={model}", f"--prediction={prediction}", f"--registry={tmp_path}/unused"]
    status, out, _ = run("summary", *options, f"--out={tmp_path}/summary.txt")
    assert status == 0
    assert (tmp_path / "summary.txt").read_text() == out
    lines = out.splitlines()
    assert lines[0] == "lobar-full-x: Succeeded after 1:01:01"
    assert lines[1] == f"model file://{model}"
    assert lines[2].startswith("  challenge metric 0.")
    report = records.read(Model(model.as_uri()).evaluation, Evaluation).report
    assert lines[4] == f"  report: file://{model}/report-{report}.html"
    assert not any("registry" in line for line in lines)
    assert f"submission file://{prediction}/submission.csv" in lines
    assert any(line.startswith("  REJECTED broken: ") for line in lines)


@pytest.mark.parametrize(
    "failures", [json.dumps(NODES), json.dumps(json.dumps(NODES))], ids=["plain", "quoted"]
)
def test_what_failed_and_what_to_do(run: Run, tmp_path: Path, failures: str) -> None:
    options = ["--workflow=w", "--status=Failed", "--seconds=1", "--chain=retrain", f"--failures={failures}"]
    options += [f"--model={tmp_path}/none", f"--prediction={tmp_path}/unused", f"--out={tmp_path}/s.txt"]
    status, out, _ = run("summary", *options, f"--registry={tmp_path}/registry")
    assert status == 0
    assert out.splitlines() == [
        "w: Failed after 0:00:01",
        "  predict(3:3): main: Error (exit code 2): error: a.dcm: cut off",
        "    -> the input is wrong: fix what the message names, then submit again",
        "  predict(4:4): main: Error (exit code 75): error: s3://x: 503",
        "    -> external failure: submit again with the same dataset, model and prediction",
        "  lobar: child failed",
        f"model file://{tmp_path}/none: not made",
        f"registry file://{tmp_path}/registry: not made",
    ]


@pytest.mark.parametrize("failures", ["", "[]", "null", '"null"', '"[]"'])
def test_nothing_failed(failures: str) -> None:
    assert summary.ended("w", "Succeeded", 1, failures) == ["w: Succeeded after 0:00:01"]


@pytest.mark.parametrize("failures", ["{{workflow.failures}}", "[1]", "{", '[{"displayName": "x"}]'])
def test_an_unreadable_list_is_shown_unchanged(failures: str) -> None:
    assert summary.ended("w", "Failed", 1, failures) == ["w: Failed after 0:00:01", f"  failures: {failures}"]


def test_a_record_that_cannot_be_read_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("{")
    (first, *rest) = summary.stored(Model(tmp_path.as_uri()), None, None)
    assert "cannot be read" in first
    assert not rest
