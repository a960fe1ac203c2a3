"""Which model is the champion: numbered records, only ever added, each with its decision and the reason."""

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.evaluation import compare
from lobar.evaluation.bootstrap import Interval
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Registry

RECORD = re.compile(r"(\d{6})\.json")


@dataclass(frozen=True)
class Entry:
    """One record: its number, what it was made from, the champion from then on, and why.

    `champion` holds a model's URL and the digest of its release, or is None while there is none; `promoted`
    tells whether this record made it the champion, `rolled_back` whether it took the one before it away.
    `comparison` is a `comparison.Comparison` as a dict, None for a rollback.
    """

    number: int
    inputs: dict[str, Any]
    champion: dict[str, str] | None
    promoted: bool
    rolled_back: bool
    why: str
    comparison: dict[str, Any] | None = None


def history(place: Registry) -> list[Entry]:
    """All records, oldest first. Raises InputError where one is missing or is none."""
    numbers = []
    for item in objects.list_objects(place.url):
        name = RECORD.fullmatch(objects.name(item.url))
        if name is None:
            raise InputError(f"{item.url}: not a registry's record; is --registry the right folder?")
        numbers.append(int(name[1]))
    if numbers != list(range(1, len(numbers) + 1)):
        raise InputError(f"{place.url}: a record before {numbers[-1]:06d}.json is missing; restore it")
    return [_entry(place, number) for number in numbers]


def champion(place: Registry) -> Model:
    """The model that the newest record names.

    Raises InputError where there is no registry, no champion yet, or its release is not the one promoted.
    """
    entries = history(place)
    if not entries:
        raise InputError(
            f"{place.url}: neither a released model nor a registry; run evaluate or promote, or check the URL"
        )
    found = entries[-1].champion
    if found is None:
        raise InputError(f"{place.url}: no champion yet; the last word was: {entries[-1].why}")
    model = Model(found["model"])
    if _release(model) != found["release"]:
        raise InputError(f"{model.release}: not the release that was promoted; it was altered, restore it")
    return model


def has_champion(place: Registry) -> bool:
    """Whether there is a registry with a champion."""
    entries = history(place)
    return bool(entries and entries[-1].champion)


def promote(place: Registry, challenger: Model, data: Dataset, min_gain: float) -> Entry:
    """Compare a challenger with the champion on a dataset's validation images and record who is champion.

    The challenger takes the champion's place where its metric is more than `min_gain` above the champion's
    and the paired interval of the difference above 0; without a champion it is held to the detector without
    a network. The same promotion again finds its record. Raises InputError where the challenger is not
    released, the dataset is not complete, or the store lets two writers win.
    """
    objects.check_create(place.url)
    asked = {"model": challenger.url, "release": _release(challenger)}
    inputs = {
        "challenger": asked,
        "dataset": data.url,
        "index": records.read_record(data.manifest, "label-index")["index"],
        "min_gain": min_gain,
        "lobar": code_version(),
    }
    while True:
        entries = history(place)
        if known := _decided(entries, inputs):
            return known
        before = entries[-1].champion if entries else None
        found = compare.compare(challenger, Model(before["model"]) if before else None, data)
        better = _is_better(found.gain, min_gain)
        made = Entry(
            number=len(entries) + 1,
            inputs=inputs,
            champion=asked if better else before,
            promoted=better,
            rolled_back=False,
            why=_why(found.gain, better, before, min_gain),
            comparison=asdict(found),
        )
        # where another promotion was first, the comparison is made again with the champion of that one
        if _create(place, made):
            return made


def roll_back(place: Registry) -> Entry:
    """Make the champion before this one champion again. Raises InputError where there was none."""
    objects.check_create(place.url)
    entries = history(place)
    reigns: list[dict[str, str] | None] = []
    for entry in entries:
        if entry.promoted:
            reigns.append(entry.champion)
        elif entry.rolled_back:
            reigns.pop()
    if len(reigns) < 2:
        raise InputError(f"{place.url}: there is no champion before this one to go back to")
    back = reigns[-2]
    why = f"rolled back from {reigns[-1]['model']}" if reigns[-1] else "rolled back"
    made = Entry(len(entries) + 1, {"rollback": len(entries)}, back, False, True, why)
    if not _create(place, made):
        raise InputError(
            f"{place.record(made.number)}: another decision came first; look at it, then try again"
        )
    return made


def _decided(entries: list[Entry], inputs: dict[str, Any]) -> Entry | None:
    """The record of this promotion, or of the one that crowned this challenger, since the last rollback."""
    for entry in reversed(entries):
        if entry.rolled_back:
            return None
        if entry.inputs == inputs or (entry.promoted and entry.champion == inputs["challenger"]):
            return entry
    return None


def _is_better(found: Interval, min_gain: float) -> bool:
    return found.metric is not None and found.metric > min_gain and (found.low or 0) > 0


def _why(found: Interval, better: bool, before: dict[str, str] | None, min_gain: float) -> str:
    other = f"the champion {before['model']}" if before else "a detector without a network (no champion yet)"
    if found.metric is None:
        return f"cannot be compared with {other}: no validation image is left that both may be judged on"
    figures = f"{found.metric:+.3f} ({found.low:+.3f} to {found.high:+.3f}) on {found.counted} images"
    if better:
        return f"better than {other}: {figures}"
    return f"not shown to be better than {other} by more than {min_gain:g}: {figures}"


def _release(model: Model) -> str:
    return records.digest(records.read_record(model.release, "evaluate"))


def _entry(place: Registry, number: int) -> Entry:
    url = place.record(number)
    record = records.read_record(url, "promote")
    try:
        return Entry(number, **{key: value for key, value in record.items() if key != "created"})
    except TypeError as error:
        raise InputError(f"{url}: not a record of this lobar's promote ({error})") from error


def _create(place: Registry, entry: Entry) -> bool:
    record = {key: value for key, value in asdict(entry).items() if key != "number"}
    record["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    return objects.create(place.record(entry.number), records.json_bytes(record))
