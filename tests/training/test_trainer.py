import csv
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pytest

from bench import notebook
from lobar.core.boxes import Box
from lobar.data.index import Exam, read_index
from lobar.evaluation import compare
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model
from lobar.training import checkpoints, sampler, trainer
from lobar.training.recipe import load
from lobar.training.record import Epoch, Training
from tests.conftest import Run, make_dicom, smooth_noise

FIELDS = "image_size=32,channels=2,blocks=1,depth=2,batch_size=4"
RECIPE = load("demo", f"{FIELDS},epochs=1,learning_rate=0.001,positive_fraction=0")


def small(changes: str = "epochs=1") -> list[str]:
    """The options of a small training."""
    return ["--recipe", "demo", "--set", f"{FIELDS},positive_fraction=0.5,learning_rate=0.001,{changes}"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset of 40 images of 84 x 64 with one box each on every other one."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["patientId,x,y,width,height,Target"]
    (folder / "images").mkdir()
    for i in range(40):
        (folder / f"images/p{i}.dcm").write_bytes(make_dicom(smooth_noise(64, 64, i)))
        rows.append(f"p{i},8,8,{20 + i % 5},16,1" if i % 2 else f"p{i},,,,,0")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, "-m", "jobs", "label-index", "--labels", folder / "labels.csv", "--images",
               folder / "images", "--out", folder / "d", "--valid-fraction", "0.3"]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True)
    return Dataset(objects.absolute(str(folder / "d")))


def split(data: Dataset, name: str, size: int = 32) -> sampler.Split:
    exams = read_index(data, name)
    images = np.arange(len(exams) * size * size, dtype=np.uint32).reshape(-1, size, size) % 251
    return sampler.Split(exams, images.astype(np.uint8))


def test_draws_depend_on_seed_and_epoch_alone(data: Dataset) -> None:
    train = split(data, "train")

    def epoch(seed: int, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(sampler.batches(train, RECIPE, seed, 4, number))

    assert all(
        np.array_equal(a, b)
        for x, y in zip(epoch(1, 2), epoch(1, 2), strict=True)
        for a, b in zip(x, y, strict=True)
    )
    assert not np.array_equal(epoch(1, 2)[0][0], epoch(1, 3)[0][0])
    assert not np.array_equal(epoch(1, 2)[0][0], epoch(2, 2)[0][0])


def test_draws_are_full_batches_of_every_image_once_half_of_them_flipped(data: Dataset) -> None:
    train = split(data, "train")
    seen: list[int] = []
    flips = 0
    for images, masks in sampler.batches(train, RECIPE, 0, 4, 0):
        assert images.shape == masks.shape == (4, 32, 32, 1)
        for image, mask in zip(images[..., 0], masks[..., 0], strict=True):
            for i, whole in enumerate(train.images):
                expected = train.masks(np.array([i]))[0]
                if np.array_equal(image, whole) and np.array_equal(mask, expected):
                    seen.append(i)
                elif np.array_equal(image, whole[:, ::-1]) and np.array_equal(mask, expected[:, ::-1]):
                    seen.append(i)
                    flips += 1
    assert len(seen) == len(set(seen)) == len(train.exams) // 4 * 4
    assert 0 < flips < len(seen)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
def test_positives_are_drawn_in_their_share_and_evenly(data: Dataset, share: float) -> None:
    train = split(data, "train")
    count = len(train.exams)
    drawn: Counter[int] = Counter()
    for images, _ in sampler.batches(train, replace(RECIPE, positive_fraction=share), 0, 1, 0):
        same = [
            np.array_equal(images[0, ..., 0], way)
            for whole in train.images
            for way in (whole, whole[:, ::-1])
        ]
        drawn[same.index(True) // 2] += 1
    assert drawn.total() == count
    for positive, wanted in ((True, round(share * count)), (False, count - round(share * count))):
        times = [drawn[i] for i, exam in enumerate(train.exams) if bool(exam.boxes) == positive]
        assert sum(times) == wanted
        assert max(times) - min(times) <= 1


def test_history_is_over_all_images(data: Dataset) -> None:
    model, valid = trainer.compile_network(RECIPE, 0), split(data, "valid")
    masks = valid.masks(np.arange(len(valid.exams)))
    predicted = np.round(model(valid.images[..., None]).numpy())[..., 0]
    assert trainer.validate(model, valid, 3)["accuracy"] == pytest.approx((predicted == masks).mean())


def test_images_that_cannot_be_decoded_end_with_2_beyond_one_in_a_hundred(run: Run, tmp_path: Path) -> None:
    rows = ["patientId,x,y,width,height,Target"]
    for i in range(12):
        pixels = make_dicom(smooth_noise(64, 64, i))
        broken = pixels.replace(b"\xff\xd9", b"\0\0") if i < 3 else pixels
        (tmp_path / f"p{i}.dcm").write_bytes(broken)
        rows.append(f"p{i},,,,,0")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    labels = ["--labels", tmp_path / "labels.csv", "--images", tmp_path, "--valid-fraction", 0.3]
    assert run("label-index", *labels, "--out", tmp_path / "d")[0] == 0
    status, _, error = run("train", "--dataset", tmp_path / "d", "--out", tmp_path / "m", *small())
    assert status == 2
    assert "train images rejected (truncated JPEG: its end marker is missing" in error
    assert "; the allowed share is 0.01; fix them. For example" in error
    assert "truncated JPEG: its end marker is missing" in error


def test_schedule_equals_the_notebooks() -> None:
    for epoch in range(10):
        assert trainer.cosine(epoch, 25, 0.001) == pytest.approx(notebook.cosine_annealing(epoch))
    assert trainer.cosine(10, 10, 0.001) == trainer.cosine(13, 10, 0.001) == pytest.approx(0)


def test_masks_in_notebook_sampling_equal_the_notebooks(real_data: Path) -> None:
    folder = real_data / "rsna_sample"
    locations = notebook.read_locations(folder / "stage_2_train_labels.csv")
    paths = [folder / f"stage_2_train_images/{patient}.dcm" for patient in locations]
    exams = [
        Exam(
            path.stem,
            str(path),
            "",
            0,
            1024,
            1024,
            "",
            tuple(Box(*box) for box in locations[path.stem]),
            1,
            "",
            "",
        )
        for path in paths
    ]
    masks = sampler.Split(exams, np.empty((len(exams), 256, 256), np.uint16)).masks(np.arange(len(exams)))
    for mask, path in zip(masks, paths, strict=True):
        assert np.array_equal(mask, notebook.load(path, locations)[1][..., 0])


def test_a_trained_model_has_its_files_history_and_record(data: Dataset, run: Run, tmp_path: Path) -> None:
    options = ["train", "--dataset", data.url, "--out", tmp_path / "m", *small("epochs=2")]
    status, out, _ = run(*options)
    assert status == 0
    assert "parameters, 2 epochs" in out
    model = Model(objects.absolute(str(tmp_path / "m")))
    record = records.read(model.training, Training)
    for sha256 in asdict(record.files).values():
        (file,) = (tmp_path / "m").glob(f"*-{sha256}.*")
        assert records.sha256(file.read_bytes()) == sha256
    rows = list(csv.DictReader(records.get(model.history, record.history).decode().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "accuracy", "mean_iou", "val_loss", "val_accuracy", "val_mean_iou"} <= {*rows[0]}
    assert not list((tmp_path / "m").rglob("*.npz"))
    status, _, said = run(*options)
    assert status == 0
    assert "trained already" in said
    assert "epoch" not in said
    status, _, error = run(*options, "--seed", 1)
    assert status == 2
    assert "made from other inputs (seed was 0, now 1)" in error


def test_a_batch_larger_than_the_set_shrinks_with_a_warning(data: Dataset, run: Run, tmp_path: Path) -> None:
    images = len(read_index(data, "train"))
    status, _, said = run(
        "train", "--dataset", data.url, "--out", tmp_path / "m", *small("epochs=1,batch_size=99")
    )
    assert status == 0
    assert f"{images} training images: the batch shrinks from 99 to {images}" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--dataset", "nowhere", *small()],
            "manifest.json: not there; run label-index first, or check the URL",
        ),
        (small("network=resnet"), "recipe demo: network is 'resnet'; it must be notebook or unet"),
        (small("learning_rate=1e20,epochs=3"), "the training diverged in epoch"),
        (small("image_size=50"), "image_size 50 is not a multiple of 2**depth = 4; change one of them"),
    ],
)
def test_wrong_options_end_with_2(
    data: Dataset, run: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    status, _, error = run("train", "--dataset", data.url, "--out", tmp_path / "m", *options)
    assert status == 2
    assert message in error


def test_a_training_starts_from_the_weights_of_a_model(data: Dataset, run: Run, tmp_path: Path) -> None:
    train = ["train", "--dataset", data.url]
    assert run(*train, *small(), "--out", tmp_path / "first")[0] == 0
    # a learning rate of 0 leaves all weights but the statistics of batches as they were
    init = f"init={tmp_path}/first,epochs=1"
    assert run(*train, *small(f"{init},learning_rate=0"), "--seed", 7, "--out", tmp_path / "second")[0] == 0
    first, second = (
        keras.models.load_model(next((tmp_path / name).glob("*.keras")), compile=False)
        for name in ("first", "second")
    )
    for one, other in zip(first.trainable_variables, second.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)
    second_model = Model(objects.absolute(str(tmp_path / "second")))
    assert len(compare.known_to(second_model)) == 2 * len(compare.exams_of(second_model))
    record = records.read(second_model.training, Training)
    initial = records.read(Model(objects.absolute(str(tmp_path / "first"))).training, Training)
    assert record.inputs.init_weights == initial.files.float32_weights
    status, _, error = run(*train, *small(f"{init},channels=3"), "--out", tmp_path / "third")
    assert status == 2
    assert "first: another network; use its values of network, channels, blocks and depth" in error


def command(data: Dataset, out: Path) -> list[str]:
    options = ["train", "--dataset", data.url, "--out", out, *small("epochs=8")]
    return [sys.executable, "-m", "jobs", *map(str, options)]


@pytest.fixture(scope="module")
def undisturbed(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(data, folder), check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_training_resumes_to_the_same_weights(
    data: Dataset, undisturbed: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    running = subprocess.Popen(command(data, tmp_path), stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert any("epoch 2 of 8" in line for line in running.stderr)
    os.kill(running.pid, stop)
    rest = running.communicate()[1]
    if stop != signal.SIGKILL:
        assert running.returncode == 75
        last = rest.strip().splitlines()[-1]
        assert last == f"error: interrupted ({stop.name}); run the same command again to continue"
    assert not (tmp_path / "training.json").exists()
    resumed = subprocess.run(command(data, tmp_path), check=True, capture_output=True, text=True)
    assert "resumed after epoch" in resumed.stderr
    files = [{path.name for path in folder.glob("openvino*")} for folder in (undisturbed, tmp_path)]
    assert len(files[0]) == 4
    assert files[0] == files[1]


def test_an_altered_checkpoint_is_rejected(data: Dataset, tmp_path: Path) -> None:
    model = trainer.compile_network(RECIPE, 0)
    saved = checkpoints.Checkpoints(objects.absolute(str(tmp_path)))
    assert saved.restore(model) == []
    model.optimizer.build(model.trainable_variables)
    history = [Epoch(1, *(0.5,) * 7)]
    saved.save(model, history)
    assert saved.restore(model) == history
    (weights,) = tmp_path.glob("*.npz")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(trainer.InputError, match="it was altered"):
        saved.restore(model)
