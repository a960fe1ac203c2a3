"""Records: typed, created once, and rejected by name if they are of another format or were altered."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobar.core.errors import AbsentError, InputError
from lobar.storage import objects, records
from lobar.storage.records import Record


@dataclass(frozen=True)
class Inputs:
    data: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Example(Record):
    FORMAT: ClassVar[int] = 3
    MADE_BY: ClassVar[str] = "example"

    inputs: Inputs
    scores: dict[str, float | None]
    ids: list[str]


EXAMPLE = Example(inputs=Inputs("data", 1), scores={"a": 0.5, "b": None}, ids=["x", "Lübeck 肺"])


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"{tmp_path.as_uri()}/example.json"


@given(
    st.builds(Inputs, data=st.text(), seed=st.integers(-(2**53), 2**53)),
    st.dictionaries(st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False)),
    st.lists(st.text()),
)
def test_a_record_comes_back_as_it_was(
    inputs: Inputs, scores: dict[str, float | None], ids: list[str]
) -> None:
    record, url = Example(inputs=inputs, scores=scores, ids=ids), "memory://records/example.json"
    objects.publish(url, records.encode(record))
    assert records.read(url, Example) == record
    assert record.format == 3


def test_a_record_is_created_once_and_stays(url: str) -> None:
    assert records.create(url, EXAMPLE) == EXAMPLE
    first = objects.read(url)
    later = replace(EXAMPLE, scores={}, created="2030-01-01T00:00:00+00:00")
    assert records.create(url, later) == EXAMPLE
    assert records.find(url, Example, EXAMPLE.inputs) == EXAMPLE
    assert objects.read(url) == first


def test_other_inputs_are_rejected_with_what_differs(url: str) -> None:
    records.create(url, EXAMPLE)
    other = replace(EXAMPLE, inputs=Inputs("data", 2))
    for attempt in (
        lambda: records.create(url, other),
        lambda: records.find(url, Example, other.inputs),
    ):
        with pytest.raises(InputError, match=r"made from other inputs \(seed was 1, now 2\); choose another"):
            attempt()
    assert records.read(url, Example) == EXAMPLE


def test_of_twenty_writers_all_get_the_record_of_one(url: str) -> None:
    with ThreadPoolExecutor(20) as pool:
        written = list(pool.map(lambda i: records.create(url, replace(EXAMPLE, ids=[str(i)])), range(20)))
    assert len({record.ids[0] for record in written}) == 1
    assert records.read(url, Example) == written[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "a record of format 2; this lobar reads 3; restore it, or run example again"),
        ({"format": None}, "a record of format None; this lobar reads 3"),
        ({"inputs": {"data": "data"}}, "not a record of example (Object missing required field `seed`"),
        ({"ids": "x"}, "not a record of example (Expected `array`, got `str` - at `$.ids`)"),
        ({"scores": {"a": "high"}}, "Expected `float | null`, got `str` - at `$.scores[...]`"),
    ],
)
def test_another_format_or_hand_is_named(url: str, change: dict[str, object], message: str) -> None:
    objects.publish(url, json.dumps(asdict(EXAMPLE) | change).encode())
    with pytest.raises(InputError) as error:
        records.read(url, Example)
    assert str(error.value).startswith(f"{url}: ")
    assert message in str(error.value)


def test_an_absent_record_names_the_job_that_makes_it(url: str) -> None:
    with pytest.raises(AbsentError, match=r"example\.json: not there; run example first, or check the URL"):
        records.read(url, Example)
    assert records.find(url, Example, EXAMPLE.inputs) is None


def test_data_are_named_by_their_content_and_checked(tmp_path: Path) -> None:
    def named(sha256: str) -> str:
        return f"{tmp_path.as_uri()}/data-{sha256}.bin"

    sha256 = records.put(named, b"data")
    assert records.get(named, sha256) == b"data"
    objects.publish(named(sha256), b"other")
    with pytest.raises(InputError, match=r"its content is not the one recorded .* it was altered"):
        records.get(named, sha256)


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert records.digest({"a": 1, "b": [2, 3]}) == records.digest({"b": (2, 3), "a": 1})
    assert records.digest(EXAMPLE.inputs) == records.digest({"seed": 1, "data": "data"})
    assert records.digest(EXAMPLE.inputs) != records.digest(Inputs("data", 2))
