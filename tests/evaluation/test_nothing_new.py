"""label-index compares a dataset with what the newest challenger was trained from: is a training needed?"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lobar.data.record import Profile
from lobar.evaluation import registry
from lobar.evaluation.registry import Champion, Decision, PromotionInputs
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Registry
from lobar.training import recipe
from lobar.training import record as training_record
from lobar.training.record import ModelFiles, Training, inputs_of
from tests.conftest import Run, make_dicom, smooth_noise

LOST = "not shown to be better than the champion file:///a"


class Nights:
    """Six labelled images, and a registry whose newest challenger was trained on them and lost."""

    def __init__(self, root: Path, run: Run) -> None:
        self.root, self.run = root, run
        self.place, self.challenger = Registry(f"{root}/registry"), Model(f"{root}/challenger")
        self.options = ["--recipe=notebook", f"--set=init={root}/base", "--valid-fraction=0.5"]
        (root / "images").mkdir()
        for i in range(6):
            (root / f"images/p{i}.dcm").write_bytes(make_dicom(smooth_noise(64, 48, i)))
        rows = [f"p{i},1,2,10,{20 + i},1\n" if i % 2 else f"p{i},,,,,0\n" for i in range(6)]
        self.labels.write_text("patientId,x,y,width,height,Target\n" + "".join(rows))
        self.groups.write_text("patientId,group\n" + "".join(f"p{i},g{i}\n" for i in range(6)))
        self.set_base_weights("1")
        assert self.night("first")[0] == "1"  # the registry is empty
        self.add_decision()

    @property
    def labels(self) -> Path:
        return self.root / "labels.csv"

    @property
    def groups(self) -> Path:
        return self.root / "groups.csv"

    def set_base_weights(self, digest: str) -> None:
        base = Dataset(f"{self.root}/first")
        inputs = training_record.TrainingInputs(base.url, "", recipe.load("notebook"), "", 0, "")
        objects.publish(Model(f"{self.root}/base").training, records.encode(training(inputs, digest)))

    def add_decision(self) -> None:
        chosen = recipe.load("notebook", f"init={self.root}/base")
        inputs = inputs_of(Dataset(f"{self.root}/first"), chosen, 0)
        records.create(self.challenger.training, training(inputs, "2"))
        decided = PromotionInputs(Champion(self.challenger.url, ""), inputs.dataset, inputs.index, 0, "")
        lost = Decision(
            number=1, inputs=decided, champion=None, promoted=False, rolled_back=False, reason=LOST,
            comparison=None,
        )  # fmt: skip
        records.create(self.place.record(1), lost)

    def night(self, name: str, *options: str) -> tuple[str, str, str]:
        """Make another dataset: whether a training is needed, and the job's stdout and stderr."""
        folder = self.root / name
        tables = [f"--labels={self.labels}", f"--images={self.root}/images", f"--groups={self.groups}"]
        tables += [f"--out={folder}", f"--figures={folder}-figures", f"--registry={self.place.url}"]
        status, out, err = self.run("label-index", *tables, "--max-rejected=0.5", *self.options, *options)
        assert status == 0, err
        return Path(f"{folder}-figures/training-needed").read_text(), out, err

    def records(self) -> int:
        return len(registry.history(self.place))


def training(inputs: training_record.TrainingInputs, weights: str) -> Training:
    files, profile = ModelFiles("", "", weights, "", ""), Profile(0, [], [], [])
    return Training(inputs=inputs, files=files, history="", parameters=0, profile=profile, rejected=[])


@pytest.fixture
def nights(tmp_path: Path, run: Run) -> Nights:
    return Nights(tmp_path, run)


def test_the_registry_says_that_nothing_is_new(nights: Nights) -> None:
    needed, out, _ = nights.night("second")
    newest = registry.history(nights.place)[-1]
    assert needed == "0"
    assert newest.reason == f"nothing new in file://{nights.root}/second: nothing trained; 000001: {LOST}"
    assert out.splitlines()[-2:] == [newest.reason, f"record: {nights.place.record(2)}"]
    assert (newest.champion, newest.promoted, newest.rolled_back) == (None, False, False)

    assert nights.night("third")[0] == "0"  # compared with the challenger, not with the night before
    assert [
        decision.unchanged and decision.unchanged.since for decision in registry.history(nights.place)
    ] == [
        None,
        1,
        1,
    ]
    assert nights.night("second")[0] == "0"  # a retried pod finds its record
    assert nights.records() == 3


def relabel(nights: Nights) -> None:
    nights.labels.write_text(nights.labels.read_text().replace("p3,1,2,10,23,1", "p3,1,2,10,24,1"))


def reorder_labels(nights: Nights) -> None:
    header, *rows = nights.labels.read_text().splitlines()
    nights.labels.write_text("\r\n".join([header, *rows[::-1]]) + "\r\n")


def replace_image(nights: Nights) -> None:
    (nights.root / "images/p2.dcm").write_bytes(make_dicom(smooth_noise(64, 48, 9)))


def break_image(nights: Nights) -> None:
    (nights.root / "images/p2.dcm").write_bytes(b"no DICOM")


def remove_image(nights: Nights) -> None:
    (nights.root / "images/p2.dcm").unlink()


def regroup(nights: Nights) -> None:
    nights.groups.write_text(nights.groups.read_text().replace("p1,g1", "p1,g0"))


def replace_base_weights(nights: Nights) -> None:
    nights.set_base_weights("3")


def remove_challenger(nights: Nights) -> None:
    objects.remove(nights.challenger.training)


def unchanged(nights: Nights) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "options", "changed"),
    [
        (relabel, [], "dataset changed since 000001.json"),
        (replace_image, [], "dataset changed"),
        (break_image, [], "dataset changed"),
        (remove_image, [], "dataset changed"),
        (regroup, [], "dataset changed"),
        (unchanged, ["--valid-fraction=0.7"], "dataset changed"),
        (unchanged, ["--seed=1"], "dataset, seed changed"),
        (unchanged, ["--recipe=rsna"], "recipe changed"),
        (unchanged, ["--set=epochs=7"], "recipe, base weights changed"),
        (replace_base_weights, [], "base weights changed"),
        (remove_challenger, [], "what has changed since 000001.json cannot be read"),
        (unchanged, ["--training=always"], ""),
        (unchanged, ["--recipe="], ""),
    ],
)
def test_a_training_is_needed_after_any_change(
    nights: Nights, change: Callable[[Nights], None], options: list[str], changed: str
) -> None:
    change(nights)
    needed, _, err = nights.night("second", *options)
    assert needed == "1"
    assert changed in err
    assert nights.records() == 1


def test_other_code_is_a_change(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_record, "code_version", lambda: "0.2.0+1")
    assert nights.night("second")[0] == "1"


def test_a_label_table_in_another_order_is_not_a_change(nights: Nights) -> None:
    reorder_labels(nights)
    assert nights.night("second")[0] == "0"


def test_after_a_rollback_the_same_model_is_not_trained_again(nights: Nights) -> None:
    rollback = Decision(
        number=2, inputs=None, champion=Champion("file:///a", ""), promoted=False, rolled_back=True,
        reason="rolled back from file:///b", comparison=None,
    )  # fmt: skip
    records.create(nights.place.record(2), rollback)
    inputs = inputs_of(
        Dataset(f"{nights.root}/first"), recipe.load("notebook", f"init={nights.root}/base"), 0
    )
    found = registry.skip_unchanged(nights.place, inputs)
    assert found is not None
    assert (found.number, found.champion) == (3, rollback.champion)


def test_a_record_from_before_is_still_read(nights: Nights) -> None:
    """Records have had no field `unchanged`."""
    url = nights.place.record(1)
    old = json.loads(objects.read(url))
    old.pop("unchanged")
    objects.publish(url, json.dumps(old).encode())
    assert nights.night("second")[0] == "0"
