"""The chain `retrain` on unchanged data, then after one label has changed."""

import shutil
import subprocess
import sys
from pathlib import Path

from lobar.evaluation import registry
from lobar.storage.layout import Registry
from tests.conftest import WORKFLOW, Run, World


def test_retrain_trains_only_if_something_has_changed(world: World, run: Run, tmp_path: Path) -> None:
    """The newest decision is on the model of `world`, which the same parameters have made."""
    data, place = world.root / "data", Registry(f"{tmp_path}/registry")
    model, dataset = world.place("models"), world.place("datasets")
    decide = ["promote", f"--challenger={model}", f"--dataset={dataset}", f"--registry={place.url}"]
    assert run(*decide)[0] == 0
    labels = tmp_path / "labels.csv"
    shutil.copyfile(data / "train_labels.csv", labels)

    def retrain(name: str) -> str:
        given = [f"root={tmp_path}", f"labels={labels}", f"images={data}/train_images"]
        given += [f"groups={data}/train_groups.csv", f"artifacts={tmp_path}", *WORKFLOW]
        given += [f"dataset={tmp_path}/datasets/{name}", f"model={tmp_path}/models/{name}"]
        command = [sys.executable, "-m", "lobar.workflow", "workflows/retrain.yaml"]
        options = [word for parameter in given for word in ("-p", parameter)]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def summary(name: str) -> str:
        options = ["--workflow=w", "--status=Succeeded", "--seconds=1", "--chain=retrain"]
        options += [f"--model={tmp_path}/models/{name}", f"--registry={place.url}"]
        status, out, _ = run("summary", *options, f"--out={tmp_path}/summary.txt")
        assert status == 0
        return out

    out = retrain("second")
    assert [
        line.split() for line in out.splitlines() if line.startswith(("train", "evaluate", "promote"))
    ] == [
        ["train", "skipped"],
        ["evaluate", "skipped"],
        ["promote", "skipped"],
    ]
    nothing_new = f"nothing new in file://{tmp_path}/datasets/second: nothing trained; 000001: better than"
    assert nothing_new in out
    assert nothing_new in summary("second")
    assert not (tmp_path / "models").exists()

    rows = labels.read_text().splitlines()
    labels.write_text("\n".join([*rows[:2], rows[2].replace("24.0,24.0,1", "23.0,24.0,1"), *rows[3:]]) + "\n")
    assert labels.read_text().splitlines() != rows
    assert "nothing new" not in retrain("third")
    newest = registry.history(place)[-1]
    assert newest.inputs is not None
    assert newest.inputs.challenger.model == f"file://{tmp_path}/models/third"
    assert "nothing new" not in summary("third")
