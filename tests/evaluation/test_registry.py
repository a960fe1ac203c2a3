"""The champion: which model becomes it, and what a retry, a race and a rollback do."""

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
from lobar.data.record import IndexInputs, Manifest, SplitCounts
from lobar.evaluation import compare, registry
from lobar.evaluation.registry import Champion, Decision
from lobar.inference.release import NOTEBOOK, EvaluationInputs, Offer, Release
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Registry
from lobar.training import recipe
from lobar.training.record import ModelFiles
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
        counts = SplitCounts(images=60, positive=60, boxes=60, groups=30, views={"PA": 60})
        manifest = Manifest(
            inputs=IndexInputs("", "", "", 0.5, 0, "", "", "", ""), index="digest", train=counts,
            valid=counts, patients=120, rejected=[], other_objects=[], drift=[],
        )  # fmt: skip
        records.create(self.data.manifest, manifest)

    def model(self, name: str, quality: float) -> Model:
        model = Model(f"{self.root}/{name}")
        self.quality[model.url] = quality
        records.create(model.release, release(name))
        return model

    def scores(self, model: Model, data: Dataset, exams: list[Exam]) -> dict[str, float]:
        self.compared()
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, len(exams))
        return {
            exam.patient_id: float(self.quality[model.url] + part)
            for exam, part in zip(exams, noise, strict=True)
        }

    def promote(self, name: str, quality: float, min_gain: float = 0) -> Decision:
        return registry.promote(self.place, self.model(name, quality), self.data, min_gain)

    @property
    def champion(self) -> str:
        return objects.name(registry.champion(self.place).url)


def champion_of(bench: "Bench", name: str) -> Champion:
    model = Model(f"{bench.root}/{name}")
    return Champion(model.url, records.digest(records.read(model.release, Release)))


def release(name: str) -> Release:
    return Release(
        inputs=EvaluationInputs(name, "", "", ""),
        files=ModelFiles("", "", "", "", ""),
        recipe=recipe.load("demo"),
        precisions={"float32": Offer(NOTEBOOK, NOTEBOOK, [])},
    )


@pytest.fixture(params=["file", "s3"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "file":
        yield _stubbed(Bench(tmp_path.as_uri()), monkeypatch)
        return
    with use_server(request.getfixturevalue("s3_server").environment):
        yield _stubbed(Bench(f"s3://lobar/{uuid.uuid4().hex}"), monkeypatch)


def _stubbed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    guess = dict.fromkeys((exam.patient_id for exam in EXAMS), WITHOUT_NETWORK)
    monkeypatch.setattr(compare, "read_index", lambda dataset, split: EXAMS)
    monkeypatch.setattr(compare, "scores_on", bench.scores)
    monkeypatch.setattr(compare, "scores_without_network", lambda model, data: guess)
    monkeypatch.setattr(compare, "known_to", lambda model: bench.known)
    return bench


def test_only_a_better_challenger_becomes_champion(bench: Bench) -> None:
    assert not bench.promote("useless", 0.05).promoted
    with pytest.raises(
        InputError, match="no champion yet; the newest decision: not shown to be better than a detector"
    ):
        registry.champion(bench.place)
    assert bench.promote("first", 0.3).promoted
    worse, equal = bench.promote("worse", 0.2), bench.promote("equal", 0.3)
    assert [worse.promoted, equal.promoted, bench.champion] == [False, False, "first"]
    assert "not shown to be better than the champion" in worse.reason
    assert bench.promote("better", 0.4).promoted
    assert bench.champion == "better"
    assert not bench.promote("a little better", 0.45, min_gain=0.1).promoted
    assert [decision.number for decision in registry.history(bench.place)] == [1, 2, 3, 4, 5, 6]


def test_the_record_says_where_the_models_differ(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.promote("first", 0.3)
    lost = {exam.patient_id: -0.2 for exam in EXAMS[:3]}
    scores = bench.scores

    def weak(model: Model, data: Dataset, exams: list[Exam]) -> dict[str, float]:
        found = scores(model, data, exams)
        return found if model.url.endswith("first") else {key: found[key] + lost.get(key, 0) for key in found}

    monkeypatch.setattr(compare, "scores_on", weak)
    bench.promote("second", 0.4)
    found = registry.history(bench.place)[-1].comparison
    assert found is not None
    assert objects.name(found.other) == "first"
    assert found.kinds["all"] == found.kinds["view PA"] == found.gain
    assert {image.patient_id for image in found.lost} == {*lost}
    assert len(found.won) == compare.LISTED
    assert all(image.challenger > image.other for image in found.won)


def test_a_retry_finds_its_own_record(bench: Bench) -> None:
    bench.promote("first", 0.3)
    model = bench.model("second", 0.2)
    once = registry.promote(bench.place, model, bench.data, 0)
    record = objects.read(bench.place.record(2))
    assert registry.promote(bench.place, model, bench.data, 0) == once
    assert len(registry.history(bench.place)) == 2
    assert objects.read(bench.place.record(2)) == record == records.encode(once)


def test_a_promotion_with_other_settings_is_a_new_record(bench: Bench) -> None:
    bench.promote("first", 0.3)
    model = bench.model("second", 0.2)
    for min_gain in (0, 0.1, 0):
        registry.promote(bench.place, model, bench.data, min_gain)
    decisions = registry.history(bench.place)
    assert [decision.inputs and decision.inputs.min_gain for decision in decisions] == [0, 0, 0.1]


def test_of_two_promotions_at_once_the_second_is_compared_with_the_new_champion(bench: Bench) -> None:
    bench.promote("first", 0.3)
    models = [bench.model("good", 0.4), bench.model("best", 0.5)]
    waited, both = set[int](), threading.Barrier(2)

    def wait() -> None:  # both compare with `first` before either writes
        if (thread := threading.get_ident()) not in waited:
            waited.add(thread)
            both.wait(10)

    bench.compared = wait
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(registry.promote, bench.place, model, bench.data, 0) for model in models]
        decisions = sorted((job.result() for job in jobs), key=lambda decision: decision.number)
    assert [decision.number for decision in decisions] == [2, 3]
    assert registry.history(bench.place)[1:] == decisions
    assert bench.champion == "best"
    champions = [objects.name(decision.champion.model) for decision in decisions if decision.champion]
    assert champions in (["good", "best"], ["best", "best"])


def test_models_that_know_the_images_cannot_be_compared(bench: Bench) -> None:
    bench.promote("first", 0.3)
    bench.known = EXAMS
    decision = bench.promote("second", 0.9)
    assert decision.comparison is not None
    assert (decision.promoted, decision.comparison.left_out, bench.champion) == (False, len(EXAMS), "first")
    assert "cannot be compared" in decision.reason


def test_rollback_goes_back_champion_by_champion(bench: Bench) -> None:
    for name, quality in (("first", 0.3), ("second", 0.4), ("kept out", 0.1), ("third", 0.5)):
        bench.promote(name, quality)
    third, second, first = (Model(f"{bench.root}/{name}") for name in ("third", "second", "first"))
    assert registry.roll_back(bench.place, third).champion == champion_of(bench, "second")
    assert registry.roll_back(bench.place, second).champion == champion_of(bench, "first")
    newest = registry.history(bench.place)[-1]
    assert (newest.number, newest.inputs, newest.promoted, newest.rolled_back) == (6, None, False, True)
    assert newest.reason == f"rolled back from {bench.root}/second"
    with pytest.raises(InputError, match="no earlier champion to roll back to"):
        registry.roll_back(bench.place, first)
    assert bench.promote("third", 0.5).promoted  # asked for again, it is compared again
    assert bench.champion == "third"
    assert registry.roll_back(bench.place, third).number == 8  # and can be rolled back again


def test_a_repeated_rollback_goes_back_once(bench: Bench) -> None:
    for name, quality in (("first", 0.3), ("second", 0.4), ("third", 0.5)):
        bench.promote(name, quality)
    third = Model(f"{bench.root}/third")
    once = registry.roll_back(bench.place, third)
    assert registry.roll_back(bench.place, third) == once
    bench.promote("fourth", 0.6)
    assert registry.roll_back(bench.place, third) == once  # also if it is repeated late
    assert bench.champion == "fourth"
    for name in ("second", "none"):
        with pytest.raises(InputError, match=rf"{name}: not the champion, which is \S+/fourth"):
            registry.roll_back(bench.place, Model(f"{bench.root}/{name}"))
    assert [decision.number for decision in registry.history(bench.place)] == [1, 2, 3, 4, 5]


def test_of_two_rollbacks_at_once_both_find_one_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, quality in (("first", 0.3), ("second", 0.4), ("third", 0.5)):
        bench.promote(name, quality)
    read, waited, both = registry.history, set[int](), threading.Barrier(2)

    def history(place: Registry) -> list[Decision]:  # both have read the registry before either writes
        decisions = read(place)
        if (thread := threading.get_ident()) not in waited:
            waited.add(thread)
            both.wait(10)
        return decisions

    third = Model(f"{bench.root}/third")
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(registry, "history", history)
        jobs = [pool.submit(registry.roll_back, bench.place, third) for _ in range(2)]
        first, second = (job.result() for job in jobs)
    decisions = registry.history(bench.place)
    assert first == second == decisions[-1]
    assert (len(decisions), bench.champion) == (4, "second")


def test_altered_and_missing_records_are_found(bench: Bench) -> None:
    for number in range(3):
        bench.promote(f"model {number}", 0.2 + number / 10)
    objects.publish(Model(f"{bench.root}/model 2").release, records.encode(release("another")))
    with pytest.raises(InputError, match="not the release that was promoted"):
        registry.champion(bench.place)
    objects.remove(bench.place.record(2))
    with pytest.raises(InputError, match=r"a record before 000003\.json is missing"):
        registry.history(bench.place)
    objects.publish(f"{bench.place.url}/notes.txt", b"mine")
    with pytest.raises(InputError, match=r"notes\.txt: not a record of a registry"):
        registry.history(bench.place)
