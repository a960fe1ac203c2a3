"""The champion: who becomes it, who does not, what a retry, a race and a rollback do."""

import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lobar.core.boxes import Box
from lobar.core.errors import InputError
from lobar.data.index import Exam
from lobar.evaluation import compare, registry
from lobar.evaluation.bootstrap import gain
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Registry
from tests.conftest import Run, World
from tests.support.stores import use_server

EXAMS = [
    Exam(f"p{i}", f"u/{i}", "", 1, 100, 100, "PA", (Box(0, 0, 9, 9),), 1, f"g{i // 2}", "valid")
    for i in range(60)
]
WITHOUT_NETWORK = 0.1


class Bench:
    """A registry in a store, and models of a stated quality; their scores are made up, not predicted."""

    def __init__(self, root: str) -> None:
        self.place = Registry(f"{root}/registry")
        self.data = Dataset(f"{root}/dataset")
        self.root = root
        self.quality: dict[str, float] = {}
        self.known: list[Exam] = []
        self.compared: Callable[[], object] = lambda: None
        records.commit(self.data.manifest, {}, index="digest")

    def model(self, name: str, quality: float) -> Model:
        model = Model(f"{self.root}/{name}")
        self.quality[model.url] = quality
        records.commit(model.release, {"name": name})
        return model

    def scores(self, model: Model, data: Dataset, exams: list[Exam]) -> dict[str, float]:
        self.compared()
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, len(exams))
        return {
            exam.patient_id: self.quality[model.url] + each for exam, each in zip(exams, noise, strict=True)
        }

    def promote(self, name: str, quality: float, min_gain: float = 0) -> registry.Entry:
        return registry.promote(self.place, self.model(name, quality), self.data, min_gain)

    @property
    def champion(self) -> str:
        return objects.name(registry.champion(self.place).url)


@pytest.fixture(params=["file", "s3"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "file":
        yield _stubbed(Bench(tmp_path.as_uri()), monkeypatch)
        return
    with use_server(request.getfixturevalue("s3_server").environment):
        yield _stubbed(Bench(f"s3://lobar/{uuid.uuid4().hex}"), monkeypatch)


def _stubbed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    guess = dict.fromkeys((exam.patient_id for exam in EXAMS), WITHOUT_NETWORK)
    monkeypatch.setattr("lobar.data.index.read_index", lambda data, split: EXAMS)
    monkeypatch.setattr(compare, "scores_on", bench.scores)
    monkeypatch.setattr(compare, "scores_without_network", lambda model, data: guess)
    monkeypatch.setattr(compare, "known_to", lambda model: bench.known)
    return bench


def test_only_a_better_challenger_takes_the_place(bench: Bench) -> None:
    assert not bench.promote("useless", 0.05).promoted
    with pytest.raises(
        InputError, match="no champion yet; the last word was: not shown to be better than a detector"
    ):
        registry.champion(bench.place)
    assert bench.promote("first", 0.3).promoted
    worse, equal = bench.promote("worse", 0.2), bench.promote("equal", 0.3)
    assert [worse.promoted, equal.promoted, bench.champion] == [False, False, "first"]
    assert "not shown to be better than the champion" in worse.why
    assert bench.promote("better", 0.4).promoted
    assert bench.champion == "better"
    assert not bench.promote("a little better", 0.45, min_gain=0.1).promoted
    assert [entry.number for entry in registry.history(bench.place)] == [1, 2, 3, 4, 5, 6]


def test_the_record_tells_where_the_models_differ(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.promote("first", 0.3)
    lost = {exam.patient_id: -0.2 for exam in EXAMS[:3]}
    scores = bench.scores

    def weak(model: Model, data: Dataset, exams: list[Exam]) -> dict[str, float]:
        found = scores(model, data, exams)
        return found if model.url.endswith("first") else {key: found[key] + lost.get(key, 0) for key in found}

    monkeypatch.setattr(compare, "scores_on", weak)
    entry = bench.promote("second", 0.4)
    assert entry.comparison is not None
    found = compare.Comparison.of(entry.comparison)
    assert objects.name(found.other) == "first"
    assert found.kinds["all"] == found.kinds["view PA"] == found.gain
    assert {each.patient_id for each in found.lost} == {*lost}
    assert len(found.won) == compare.LISTED
    assert all(each.challenger > each.other for each in found.won)


def test_a_retry_finds_its_own_record(bench: Bench) -> None:
    bench.promote("first", 0.3)
    model = bench.model("second", 0.2)
    once = registry.promote(bench.place, model, bench.data, 0)
    assert registry.promote(bench.place, model, bench.data, 0) == once
    assert len(registry.history(bench.place)) == 2


def test_of_two_promotions_at_once_the_loser_meets_the_new_champion(bench: Bench) -> None:
    bench.promote("first", 0.3)
    models = [bench.model("good", 0.4), bench.model("best", 0.5)]
    met, meeting = set[int](), threading.Barrier(2)

    def meet() -> None:  # both compare with `first` before either writes
        if (me := threading.get_ident()) not in met:
            met.add(me)
            meeting.wait(10)

    bench.compared = meet
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(registry.promote, bench.place, model, bench.data, 0) for model in models]
        entries = sorted((job.result() for job in jobs), key=lambda entry: entry.number)
    assert [entry.number for entry in entries] == [2, 3]
    assert bench.champion == "best"
    crowned = [objects.name(entry.champion["model"]) for entry in entries if entry.champion]
    assert crowned in (["good", "best"], ["best", "best"])


def test_who_knows_the_images_cannot_be_compared(bench: Bench) -> None:
    bench.promote("first", 0.3)
    bench.known = EXAMS
    entry = bench.promote("second", 0.9)
    assert entry.comparison is not None
    assert (entry.promoted, entry.comparison["left_out"], bench.champion) == (False, len(EXAMS), "first")
    assert "cannot be compared" in entry.why


def test_rollback_goes_back_reign_by_reign(bench: Bench) -> None:
    for name, quality in (("first", 0.3), ("second", 0.4), ("kept out", 0.1), ("third", 0.5)):
        bench.promote(name, quality)
    assert objects.name(registry.roll_back(bench.place).champion["model"]) == "second"
    assert objects.name(registry.roll_back(bench.place).champion["model"]) == "first"
    with pytest.raises(InputError, match="no champion before this one"):
        registry.roll_back(bench.place)
    assert bench.promote("third", 0.5).promoted  # asked for again, it is compared again
    assert bench.champion == "third"


def test_what_was_altered_is_found(bench: Bench) -> None:
    for number in range(3):
        bench.promote(f"model {number}", 0.2 + number / 10)
    records.commit(Model(f"{bench.root}/model 2").release, {"name": "another"})
    with pytest.raises(InputError, match="not the release that was promoted"):
        registry.champion(bench.place)
    objects.remove(bench.place.record(2))
    with pytest.raises(InputError, match=r"a record before 000003\.json is missing"):
        registry.history(bench.place)
    objects.publish(f"{bench.place.url}/notes.txt", b"mine")
    with pytest.raises(InputError, match=r"notes\.txt: not a registry's record"):
        registry.history(bench.place)


def test_the_gain_is_that_of_the_metric() -> None:
    """An image without truth counts only for the system that finds something on it."""
    ours: list[float | None] = [1.0, 0.5, None, 0.0]
    theirs: list[float | None] = [0.5, 0.5, 0.0, None]
    found = gain(EXAMS[:4], ours, theirs)
    assert found.metric == pytest.approx(0.5 - 1 / 3)
    assert found.counted == 4
    assert found.low <= found.metric <= found.high
    same = gain(EXAMS[:4], ours, ours)
    assert (same.metric, same.low, same.high) == (0, 0, 0)
    assert gain(EXAMS[:1], [None], [0.5]).metric is None


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

    # on another day's dataset both run at their released points, on people that neither knows
    data = world.root / "data"
    more = ["label-index", f"--labels={data}/train_labels.csv", f"--images={data}/train_images"]
    more += [f"--groups={data}/train_groups.csv", f"--out={tmp_path}/more", "--valid-fraction=0.6"]
    assert run(*more)[0] == 0
    promote[1] = f"--dataset={tmp_path}/more"
    status, out, _ = run(*promote, f"--challenger={other}")
    counts = [json.loads((each / "summary.json").read_text()) for each in (dataset, tmp_path / "more")]
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
        ([], "either --rollback alone, or --challenger and --dataset"),
        (["--rollback", "--challenger=x"], "either --rollback alone"),
        (["--rollback", "--report=x"], "either --rollback alone"),
        (["--challenger=x"], "either --rollback alone"),
        (["--challenger=none", "--dataset=none"], "none/release.json: not there; run evaluate first"),
    ],
)
def test_wrong_options_exit_2(run: Run, tmp_path: Path, options: list[str], message: str) -> None:
    status, _, err = run("promote", f"--registry={tmp_path}/registry", *options)
    assert status == 2
    assert message in err.splitlines()[-1]


def test_a_folder_that_is_neither_model_nor_registry(run: Run, tmp_path: Path) -> None:
    status, _, err = run(
        "plan", f"--images={tmp_path}", f"--model={tmp_path}/none", "--shards=1", f"--out={tmp_path}/p"
    )
    assert status == 2
    assert "neither a released model nor a registry" in err
