"""An interrupted training continues from its last checkpoint, to the same weights."""

import signal
from pathlib import Path

import numpy as np
import pytest

from lobar.storage import objects
from lobar.storage.layout import Dataset
from lobar.training import checkpoints, trainer
from lobar.training.recipe import load
from lobar.training.record import Epoch
from tests.support.job_process import JobProcess
from tests.training.conftest import FIELDS, small


def start(data: Dataset, folder: Path, attempt: int = 1) -> JobProcess:
    """Start a training into `folder`/model; its output is in `folder`/ATTEMPT.log."""
    options = ["--dataset", data.url, "--out", folder / "model", *small("epochs=8")]
    return JobProcess(folder / f"{attempt}.log", "train", *options)


@pytest.fixture(scope="module")
def uninterrupted(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert start(data, folder).status() == 0
    return folder / "model"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_training_resumes_to_the_same_weights(
    data: Dataset, uninterrupted: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    first = start(data, tmp_path)
    first.wait_for("epoch 2 of 8")
    first.send(stop)
    status = first.status()
    if stop == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 75
        last = first.output.read_text().strip().splitlines()[-1]
        assert last == f"error: interrupted ({stop.name}); run the same command again to continue"
    assert not (tmp_path / "model/training.json").exists()
    second = start(data, tmp_path, attempt=2)
    assert second.status() == 0
    assert "resumed after epoch" in second.output.read_text()
    files = [
        {path.name for path in folder.glob("openvino*")} for folder in (uninterrupted, tmp_path / "model")
    ]
    assert len(files[0]) == 4
    assert files[0] == files[1]


def test_an_altered_checkpoint_is_rejected(tmp_path: Path) -> None:
    model = trainer.compile_network(load("notebook", f"{FIELDS},epochs=1"), 0)
    saved = checkpoints.Checkpoints(objects.absolute(str(tmp_path)))
    assert saved.restore(model) == []
    history = [Epoch(1, *(0.5,) * 7)]
    saved.save(model, history)
    assert saved.restore(model) == history
    (weights,) = tmp_path.glob("*.npz")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(trainer.InputError, match="it was altered"):
        saved.restore(model)


def test_a_checkpoint_restores_an_encoder(tmp_path: Path) -> None:
    chosen = load("notebook", f"{FIELDS},epochs=1,network=unet,encoder=efficientnetlite0,depth=5")
    first, second = (trainer.compile_network(chosen, seed) for seed in (0, 1))
    saved = checkpoints.Checkpoints(objects.absolute(str(tmp_path)))
    saved.save(first, [Epoch(1, *(0.5,) * 7)])
    saved.restore(second)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("moment", ["record", "variables"])
def test_a_checkpoint_that_another_pod_replaces_meanwhile_is_found_by_listing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A predecessor that still runs saves its next epoch between the listing and the read, twice."""
    model = trainer.compile_network(load("notebook", f"{FIELDS},epochs=1"), 0)
    saved = checkpoints.Checkpoints(objects.absolute(str(tmp_path)))
    history = [Epoch(1, *(0.5,) * 7)]
    saved.save(model, history)
    read = objects.read

    def read_too_late(url: str) -> bytes:
        if len(history) < 3 and url.endswith(".json" if moment == "record" else ".npz"):
            history.append(Epoch(len(history) + 1, *(0.5,) * 7))
            saved.save(model, history)
        return read(url)

    monkeypatch.setattr(objects, "read", read_too_late)
    assert [epoch.epoch for epoch in saved.restore(model)] == [1, 2, 3]


def test_a_checkpoint_without_its_variables_is_reported(tmp_path: Path) -> None:
    model = trainer.compile_network(load("notebook", f"{FIELDS},epochs=1"), 0)
    saved = checkpoints.Checkpoints(objects.absolute(str(tmp_path)))
    saved.save(model, [Epoch(1, *(0.5,) * 7)])
    (variables,) = tmp_path.glob("*.npz")
    variables.unlink()
    with pytest.raises(trainer.InputError, match=f"{variables.name}: there is no such object"):
        saved.restore(model)
