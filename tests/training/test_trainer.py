import csv
import io
import itertools
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest

from bench import notebook
from jobs.__main__ import main
from lobar.core.boxes import Box
from lobar.data.index import Exam, read_index
from lobar.evaluation import compare
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model
from lobar.training import pretrained, sampler, torch_weights, trainer
from lobar.training.recipe import Encoder, Schedule, load
from lobar.training.record import Training
from tests.conftest import Run, make_dicom, smooth_noise
from tests.training.conftest import FIELDS, small

RECIPE = load("notebook", f"{FIELDS},epochs=1,learning_rate=0.001,positive_fraction=0")


def split(data: Dataset, name: str, size: int = 32) -> sampler.Split:
    exams = read_index(data, name)
    images = np.arange(len(exams) * size * size, dtype=np.uint32).reshape(-1, size, size) % 251
    return sampler.Split(exams, images.astype(np.uint8))


def test_batches_depend_only_on_seed_and_epoch(data: Dataset) -> None:
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


def test_batches_are_full_with_each_image_at_most_once_and_some_flipped(data: Dataset) -> None:
    train = split(data, "train")
    seen: list[int] = []
    flips = 0
    for images, masks in sampler.batches(train, RECIPE, 0, 4, 0):
        assert images.shape == masks.shape == (4, 32, 32, 1)
        for image, mask in zip(images[..., 0], masks[..., 0], strict=True):
            for i, original in enumerate(train.images):
                expected = train.masks(np.array([i]))[0]
                if np.array_equal(image, original) and np.array_equal(mask, expected):
                    seen.append(i)
                elif np.array_equal(image, original[:, ::-1]) and np.array_equal(mask, expected[:, ::-1]):
                    seen.append(i)
                    flips += 1
    assert len(seen) == len(set(seen)) == len(train.exams) // 4 * 4
    assert 0 < flips < len(seen)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9, 1.0])
def test_positives_are_sampled_evenly_and_in_the_given_fraction(data: Dataset, fraction: float) -> None:
    train = split(data, "train")
    count = len(train.exams)
    drawn: Counter[int] = Counter()
    for images, _ in sampler.batches(train, replace(RECIPE, positive_fraction=fraction), 0, 1, 0):
        same = [
            np.array_equal(images[0, ..., 0], candidate)
            for original in train.images
            for candidate in (original, original[:, ::-1])
        ]
        drawn[same.index(True) // 2] += 1
    assert drawn.total() == count
    for positive, expected in ((True, round(fraction * count)), (False, count - round(fraction * count))):
        times = [drawn[i] for i, exam in enumerate(train.exams) if bool(exam.boxes) == positive]
        assert sum(times) == expected
        assert max(times) - min(times) <= 1


def test_validation_metrics_cover_all_images(data: Dataset) -> None:
    model, valid = trainer.compile_network(RECIPE, 0), split(data, "valid")
    masks = valid.masks(np.arange(len(valid.exams)))
    predicted = np.round(model(valid.images[..., None]).numpy())[..., 0]
    assert trainer.validate(model, valid, 3)["accuracy"] == pytest.approx((predicted == masks).mean())


def test_more_than_one_percent_of_undecodable_images_exits_with_2(run: Run, tmp_path: Path) -> None:
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


def test_learning_rate_schedule_equals_the_notebooks() -> None:
    for epoch in range(10):
        assert trainer.cosine(epoch, 25, 0.001) == pytest.approx(notebook.cosine_annealing(epoch))
    assert trainer.cosine(10, 10, 0.001) == trainer.cosine(13, 10, 0.001) == pytest.approx(0)


def test_the_learning_rate_falls_with_each_epoch_or_each_step() -> None:
    recipe = replace(RECIPE, epochs=2, learning_rate=0.4)

    def rates(schedule: Schedule) -> list[float]:
        chosen = replace(recipe, schedule=schedule)
        return [rate for epoch in range(2) for rate in trainer.learning_rates(chosen, epoch, 10)]

    assert rates(Schedule.EPOCH) == pytest.approx([0.4] * 10 + [0.2] * 10)
    by_step = rates(Schedule.STEP)
    assert by_step[0] == 0.4 and by_step[10] == pytest.approx(0.2)
    assert all(0 < later < earlier for earlier, later in itertools.pairwise(by_step))


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


@dataclass(frozen=True)
class Trained:
    """A model, the options that it was trained with, and what that training printed."""

    folder: Path
    options: list[str]
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def trained(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training whose batch is larger than the number of training images."""
    folder = tmp_path_factory.mktemp("trained") / "m"
    options = ["train", "--dataset", data.url, "--out", str(folder), *small("epochs=2,batch_size=99")]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert main(options) == 0
    return Trained(folder, options, out.getvalue(), err.getvalue())


def test_a_trained_model_has_its_files_history_and_record(trained: Trained, run: Run) -> None:
    assert "parameters, 2 epochs" in trained.stdout
    model = Model(objects.absolute(str(trained.folder)))
    record = records.read(model.training, Training)
    for sha256 in asdict(record.files).values():
        (file,) = trained.folder.glob(f"*-{sha256}.*")
        assert records.sha256(file.read_bytes()) == sha256
    rows = list(csv.DictReader(records.get(model.history, record.history).decode().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "accuracy", "mean_iou", "val_loss", "val_accuracy", "val_mean_iou"} <= {*rows[0]}
    assert not list(trained.folder.rglob("*.npz"))
    status, _, stderr = run(*trained.options)
    assert status == 0
    assert "trained already" in stderr
    assert "epoch" not in stderr
    status, _, error = run(*trained.options, "--seed", 1)
    assert status == 2
    assert "made from other inputs (seed was 0, now 1)" in error


def test_a_batch_larger_than_the_training_set_shrinks_with_a_warning(data: Dataset, trained: Trained) -> None:
    images = len(read_index(data, "train"))
    assert f"{images} training images: the batch shrinks from 99 to {images}" in trained.stderr


def test_an_encoder_starts_from_the_weights_of_its_package_or_of_a_model(
    data: Dataset, run: Run, tmp_path: Path
) -> None:
    fields = "network=unet,encoder=efficientnetlite0,depth=5,epochs=1"
    train = ["train", "--dataset", data.url]
    # a learning rate of 0 changes only the statistics of batch normalization, which are not trained
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(*train, "--out", first, *small(f"{fields},learning_rate=0,precision=mixed_bfloat16"))[0] == 0
    assert run(*train, "--out", second, "--seed", 7, *small(f"{fields},learning_rate=0,init={first}"))[0] == 0
    package = pretrained.PACKAGES[Encoder.EFFICIENTNETLITE0]
    stem = torch_weights.parse(package.read(), package.file)["_conv_stem.weight"]
    records_of = [
        records.read(Model(objects.absolute(str(folder))).training, Training) for folder in (first, second)
    ]
    assert [record.inputs.encoder_weights for record in records_of] == [package.sha256, ""]
    networks_of = [
        keras.models.load_model(next(folder.glob("*.keras")), compile=False) for folder in (first, second)
    ]
    for one, other in zip(*(network.trainable_variables for network in networks_of), strict=True):
        np.testing.assert_array_equal(one, other)
    encoder = networks_of[1].layers[-1].get_layer("efficientnetlite0")
    kernel = encoder.get_layer("conv_stem").kernel
    np.testing.assert_allclose(kernel[:, :, 0], stem.sum(axis=1).transpose(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            small("network=unet,encoder=resnet50,depth=5,encoder_weights=nowhere.h5"),
            "nowhere.h5: there is no such object",
        ),
        (
            ["--dataset", "nowhere", *small()],
            "manifest.json: not there; run label-index first, or check the URL",
        ),
        (small("network=resnet"), "recipe notebook: network is 'resnet'; it must be notebook or unet"),
        (small("learning_rate=1e20,epochs=3"), "the training diverged in epoch"),
        (small("image_size=50"), "image_size 50 is not a multiple of 2**depth = 4; change one of them"),
    ],
)
def test_wrong_options_exit_with_2(
    data: Dataset, run: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    status, _, error = run("train", "--dataset", data.url, "--out", tmp_path / "m", *options)
    assert status == 2
    assert message in error


def test_a_training_starts_from_the_weights_of_another_model(
    data: Dataset, trained: Trained, run: Run, tmp_path: Path
) -> None:
    train = ["train", "--dataset", data.url]
    # a learning rate of 0 changes only the statistics of batch normalization, which are not trained
    init = f"init={trained.folder},epochs=1"
    assert run(*train, *small(f"{init},learning_rate=0"), "--seed", 7, "--out", tmp_path / "second")[0] == 0
    first, second = (
        keras.models.load_model(next(folder.glob("*.keras")), compile=False)
        for folder in (trained.folder, tmp_path / "second")
    )
    for one, other in zip(first.trainable_variables, second.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)
    second_model = Model(objects.absolute(str(tmp_path / "second")))
    assert len(compare.known_to(second_model)) == 2 * len(compare.exams_of(second_model))
    record = records.read(second_model.training, Training)
    initial = records.read(Model(objects.absolute(str(trained.folder))).training, Training)
    assert record.inputs.init_weights == initial.files.float32_weights
    status, _, error = run(*train, *small(f"{init},channels=3"), "--out", tmp_path / "third")
    assert status == 2
    assert "m: another network; use its values of network, encoder, channels, blocks and depth" in error
