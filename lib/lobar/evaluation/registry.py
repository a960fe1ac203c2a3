"""Which model is the champion: numbered records, only ever added, each with its decision and the reason."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.data import drift
from lobar.data.index import Exam
from lobar.data.record import Manifest, Shift
from lobar.evaluation import compare
from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.compare import Comparison
from lobar.inference.release import Release
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Registry
from lobar.storage.records import Record
from lobar.training.record import Training, TrainingInputs

RECORD = re.compile(r"(\d{6})\.json")
# What a training is made from, in words; not the dataset's URL: every night makes another folder.
COMPARED = MappingProxyType(
    {
        "index": "dataset",
        "recipe": "recipe",
        "init_weights": "base weights",
        "encoder_weights": "encoder weights",
        "seed": "seed",
        "lobar": "code",
    }
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Champion:
    """A model's URL and the digest of its release."""

    model: str
    release: str


@dataclass(frozen=True)
class PromotionInputs:
    """What a promotion is decided from."""

    challenger: Champion
    dataset: str
    index: str
    min_gain: float
    lobar: str


@dataclass(frozen=True)
class Unchanged:
    """A dataset that was not trained on: the training would repeat that of record `since`'s challenger."""

    dataset: str
    since: int


@dataclass(frozen=True, kw_only=True)
class Decision(Record):
    """One record of the registry: the champion from then on, and why.

    `champion` is None until there is one. `promoted` says whether this record made it the champion,
    `rolled_back` whether it removed the previous one, `unchanged` that there was nothing new to train from.
    Only a promotion, and a champion kept against a challenger, have inputs and a comparison.
    """

    MADE_BY: ClassVar[str] = "promote"

    number: int
    inputs: PromotionInputs | None
    champion: Champion | None
    promoted: bool
    rolled_back: bool
    reason: str
    comparison: Comparison | None
    unchanged: Unchanged | None = None


def history(place: Registry) -> list[Decision]:
    """All records, oldest first. Raises InputError if one is missing or is not a record."""
    numbers = []
    for item in objects.list_objects(place.url):
        name = RECORD.fullmatch(objects.name(item.url))
        if name is None:
            raise InputError(f"{item.url}: not a record of a registry; is this the registry's folder?")
        numbers.append(int(name[1]))
    if numbers != list(range(1, len(numbers) + 1)):
        raise InputError(f"{place.url}: a record before {numbers[-1]:06d}.json is missing; restore it")
    return [records.read(place.record(number), Decision) for number in numbers]


def champion(place: Registry) -> Model:
    """The model that the newest record names.

    Raises InputError if there is no registry, no champion yet, or its release is not the one promoted.
    """
    decisions = history(place)
    if not decisions:
        raise InputError(
            f"{place.url}: neither a released model nor a registry; run evaluate or promote, or check the URL"
        )
    current = decisions[-1].champion
    if current is None:
        raise InputError(f"{place.url}: no champion yet; the newest decision: {decisions[-1].reason}")
    model = Model(current.model)
    if _release(model) != current.release:
        raise InputError(f"{model.release}: not the release that was promoted; it was altered, restore it")
    return model


def resolve(url: str) -> Model:
    """The released model at a URL, or the champion if it is the URL of a registry."""
    model = Model(url)
    return model if objects.exists(model.release) else champion(Registry(model.url))


@drift.advice
def drift_from_champion(place: Registry, exams: Sequence[Exam]) -> list[Shift]:
    """How labelled images compare with those that the champion was trained on; empty if there is no champion.

    Warns of what has drifted.
    """
    decisions = history(place)
    if not decisions or decisions[-1].champion is None:
        return []
    model = champion(place)
    shifts = drift.between(exams, compare.exams_of(model))
    drift.warn(shifts, model.url)
    return shifts


def promote(place: Registry, challenger: Model, dataset: Dataset, min_gain: float) -> Decision:
    """Compare a challenger with the champion on a dataset's validation images and record who is champion.

    The challenger replaces the champion if its metric is more than `min_gain` above the champion's and the
    paired interval of the difference is above 0; without a champion it is compared with the detector without
    a network. The same promotion again finds its record. Raises InputError if the challenger is not released,
    the dataset is not complete, or the store lets two writers win.
    """
    objects.check_create(place.url)
    candidate = Champion(challenger.url, _release(challenger))
    index = records.read(dataset.manifest, Manifest).index
    inputs = PromotionInputs(candidate, dataset.url, index, min_gain, code_version())
    while True:
        decisions = history(place)
        if known := _decided(decisions, inputs):
            return known
        before = decisions[-1].champion if decisions else None
        comparison = compare.compare(challenger, Model(before.model) if before else None, dataset)
        gain = comparison.gain
        better = gain.metric is not None and gain.metric > min_gain and (gain.low or 0) > 0
        decision = Decision(
            number=len(decisions) + 1,
            inputs=inputs,
            champion=candidate if better else before,
            promoted=better,
            rolled_back=False,
            reason=_reason(gain, better, before, min_gain),
            comparison=comparison,
        )
        # if another promotion was first, the challenger is compared again, with the champion of that one
        if _create(place, decision):
            return decision


def roll_back(place: Registry, removed: Model) -> Decision:
    """Make the champion before `removed` champion again. The same rollback again finds its record.

    Raises InputError if `removed` is not the champion, or there was none before it.
    """
    objects.check_create(place.url)
    while True:
        decisions = history(place)
        champions, rolled_back = _replay(decisions)
        if not champions or champions[-1].model != removed.url:
            if done := rolled_back.get(removed.url):
                log.info("rolled back already: %s", removed.url)
                return done
            current = champions[-1].model if champions else "none yet"
            raise InputError(f"{removed.url}: not the champion, which is {current}", setting="rollback")
        if len(champions) < 2:
            raise InputError(f"{place.url}: there is no earlier champion to roll back to")
        decision = Decision(
            number=len(decisions) + 1,
            inputs=None,
            champion=champions[-2],
            promoted=False,
            rolled_back=True,
            reason=f"rolled back from {removed.url}",
            comparison=None,
        )
        # if another record was first, it may be that of the same rollback
        if _create(place, decision):
            return decision


def _replay(decisions: Sequence[Decision]) -> tuple[list[Champion], dict[str, Decision]]:
    """All champions that were not rolled back, and the rollback of each model not promoted since."""
    champions: list[Champion] = []
    rolled_back: dict[str, Decision] = {}
    for decision in decisions:
        if decision.promoted and decision.champion:
            champions.append(decision.champion)
            rolled_back.pop(decision.champion.model, None)
        elif decision.rolled_back:
            rolled_back[champions.pop().model] = decision
    return champions, rolled_back


def skip_unchanged(place: Registry, inputs: TrainingInputs) -> Decision | None:
    """Record that a training from `inputs` would only repeat that of the newest challenger.

    Returns None, and records nothing, if there is something new, or the newest challenger is gone. The same
    dataset again finds its record.
    """
    while True:
        decisions = history(place)
        newest = next((decision for decision in reversed(decisions) if decision.inputs), None)
        if newest is None or (changes := _changes(newest, inputs)):
            log.info("something to train: %s", changes if newest else "no decision in the registry yet")
            return None
        unchanged = Unchanged(inputs.dataset, newest.number)
        if known := next((decision for decision in decisions if decision.unchanged == unchanged), None):
            return known
        objects.check_create(place.url)
        decision = Decision(
            number=len(decisions) + 1,
            inputs=None,
            champion=decisions[-1].champion,
            promoted=False,
            rolled_back=False,
            reason=f"nothing new in {inputs.dataset}: nothing trained; {newest.number:06d}: {newest.reason}",
            comparison=None,
            unchanged=unchanged,
        )
        if _create(place, decision):
            return decision


def _changes(decision: Decision, inputs: TrainingInputs) -> str:
    """What of `inputs` is not as in the training of a decision's challenger, in words; empty if nothing."""
    assert decision.inputs is not None, "a decision on a challenger"
    challenger = Model(decision.inputs.challenger.model)
    since = f"since {decision.number:06d}.json"
    try:
        before = records.read(challenger.training, Training).inputs
    except InputError as error:
        return f"what has changed {since} cannot be read ({error})"
    changed = [word for name, word in COMPARED.items() if getattr(before, name) != getattr(inputs, name)]
    return f"{', '.join(changed)} changed {since}" if changed else ""


def _decided(decisions: Sequence[Decision], inputs: PromotionInputs) -> Decision | None:
    """The record of this promotion, or of the one that promoted this challenger, since the last rollback."""
    for decision in reversed(decisions):
        if decision.rolled_back:
            return None
        if decision.inputs == inputs or (decision.promoted and decision.champion == inputs.challenger):
            return decision
    return None


def _reason(gain: Interval, better: bool, before: Champion | None, min_gain: float) -> str:
    other = f"the champion {before.model}" if before else "a detector without a network (no champion yet)"
    if gain.metric is None:
        return f"cannot be compared with {other}: no validation image is left that neither was trained on"
    figures = f"{gain.metric:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) on {gain.counted} images"
    if better:
        return f"better than {other}: {figures}"
    return f"not shown to be better than {other} by more than {min_gain:g}: {figures}"


def _release(model: Model) -> str:
    return records.digest(records.read(model.release, Release))


def _create(place: Registry, decision: Decision) -> bool:
    return objects.create(place.record(decision.number), records.encode(decision))
