"""The job promote: on real models, and what it says of wrong options."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Run, World


def test_a_real_model_is_promoted_compared_and_planned_with(world: World, run: Run, tmp_path: Path) -> None:
    model, dataset = world.place("models"), world.place("datasets")
    promote = ["promote", f"--dataset={dataset}", f"--registry={tmp_path}/registry"]
    status, out, _ = run(*promote, f"--challenger={model}", f"--figures={tmp_path}/figures")
    assert (status, (tmp_path / "figures/promoted").read_text()) == (0, "1")
    assert f"champion: file://{model}" in out

    other = tmp_path / "other"
    shutil.copytree(model, other)
    status, out, _ = run(*promote, f"--challenger={other}", f"--report={tmp_path}/decision.html")
    assert (status, "kept: not shown to be better" in out) == (0, True)
    page = (tmp_path / "decision.html").read_text()
    assert "The champion stays" in page
    assert f"file://{model}" in page
    assert f"file://{other}" in page
    assert "<script" not in page

    # on a later dataset both networks run, on patients that neither knows
    data = world.root / "data"
    more = ["label-index", f"--labels={data}/train_labels.csv", f"--images={data}/train_images"]
    more += [f"--groups={data}/train_groups.csv", f"--out={tmp_path}/more", "--valid-fraction=0.6"]
    assert run(*more)[0] == 0
    promote[1] = f"--dataset={tmp_path}/more"
    status, out, _ = run(*promote, f"--challenger={other}")
    counts = [json.loads((folder / "manifest.json").read_text()) for folder in (dataset, tmp_path / "more")]
    assert status == 0
    assert "+0.000 (+0.000 to +0.000)" in out
    assert "validation images left out" in out, counts

    plan = ["plan", f"--images={data}/test_images", f"--model={tmp_path}/registry", "--shards=2"]
    status, out, _ = run(*plan, f"--out={tmp_path}/prediction")
    assert status == 0
    assert json.loads((tmp_path / "prediction/plan.json").read_text())["inputs"]["model"] == f"file://{model}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either --rollback MODEL alone, or --challenger and --dataset"),
        (["--rollback=m", "--challenger=x"], "either --rollback MODEL alone"),
        (["--rollback=m", "--report=x"], "either --rollback MODEL alone"),
        (["--challenger=x"], "either --rollback MODEL alone"),
        (["--rollback"], "requires an argument"),
        (["--rollback=m"], "/m: not the champion, which is none yet (option --rollback)"),
        (["--challenger=none", "--dataset=none"], "none/release.json: not there; run evaluate first"),
    ],
)
def test_wrong_options_exit_2(run: Run, tmp_path: Path, options: list[str], message: str) -> None:
    status, _, err = run("promote", f"--registry={tmp_path}/registry", *options)
    assert status == 2
    assert message in err.splitlines()[-1]


def test_a_folder_that_is_neither_model_nor_registry_ends_with_2(run: Run, tmp_path: Path) -> None:
    status, _, err = run(
        "plan", f"--images={tmp_path}", f"--model={tmp_path}/none", "--shards=1", f"--out={tmp_path}/p"
    )
    assert status == 2
    assert "neither a released model nor a registry" in err
