"""Every job dies before and after each operation on its store, loses each reply, and meets a second writer.

Then it runs again, and what lies there is what an undisturbed run leaves. Enumerated, not sampled.
"""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from lobar.storage import retry
from lobar.synthetic import phantoms
from tests.conftest import Run
from tests.support.crashes import CHANGES, Crash, Kind, numbered
from tests.support.undisturbed import (
    Job,
    check_whole,
    objects,
    run_all,
    simple_training,
    undisturbed,
    without_time,
)

ROOT = "memory:///crash-points"
JOBS = ["demo-data", "label-index", "train", "evaluate", "plan", "predict", "merge-submission", "promote"]


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, Job]]:
    """Each job as it ran undisturbed; from then on the waits between tries are short."""
    with simple_training(), pytest.MonkeyPatch.context() as patch:
        # films drawn in other processes would lie in other memories
        patch.setattr(phantoms, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
        with numbered() as store:
            found = run_all(ROOT, store.operations, labelled=12, new=4)
            films, champions = f"{ROOT}/films", f"{ROOT}/registry"
            drawn = ["--out", films, "--train", 2, "--test", 1]
            found["demo-data"] = undisturbed(store.operations, films, "demo-data", *drawn)
            compared = ["--challenger", f"{ROOT}/model", "--dataset", f"{ROOT}/dataset"]
            found["promote"] = undisturbed(
                store.operations, champions, "promote", *compared, "--registry", champions
            )
        patch.setattr(retry, "FIRST_WAIT", 0.001)
        yield found


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("kind", [Kind.before, Kind.after])
def test_a_job_that_dies_at_any_operation_leaves_nothing_half_and_goes_on(
    kind: Kind, job: str, golden: dict[str, Job], run: Run
) -> None:
    for at, operation in enumerate(golden[job].requests, start=1):
        if kind is Kind.after and not operation.startswith(CHANGES):
            continue  # as before the next one
        place = f"{ROOT}/{uuid.uuid4().hex}"
        command = golden[job].at(place)
        with numbered(kind, at), pytest.raises(Crash):
            run(*command)
        check_whole(objects(place), golden[job].made)
        status, _, said = run(*command)
        assert status == 0, (at, said)
        assert without_time(objects(place)) == without_time(golden[job].made), at


@pytest.mark.parametrize("job", JOBS)
def test_a_reply_that_is_lost_at_any_operation_changes_nothing(
    job: str, golden: dict[str, Job], run: Run
) -> None:
    for at in range(1, len(golden[job].requests) + 1):
        place = f"{ROOT}/{uuid.uuid4().hex}"
        command = golden[job].at(place)
        with numbered(Kind.lost, at) as store:
            status, _, said = run(*command)
        assert status == 0, (at, said)
        assert len(store.operations) > len(golden[job].requests)
        assert without_time(objects(place)) == without_time(golden[job].made), at


@pytest.mark.parametrize("job", JOBS)
def test_a_second_writer_before_any_operation_does_no_harm(
    job: str, golden: dict[str, Job], run: Run
) -> None:
    """It has done the same job from its first object to its last."""
    made = golden[job].made

    def other() -> None:
        store = fsspec.filesystem("memory")
        for url in store.find(f"{place}/checkpoints"):
            store.rm_file(url)
        for name, data in made.items():
            store.pipe_file(f"{place}/{name}", data)

    for at in range(1, len(golden[job].requests) + 1):
        place = f"{ROOT}/{uuid.uuid4().hex}"
        command = golden[job].at(place)
        with numbered(Kind.second, at, other):
            status, _, said = run(*command)
        assert status == 0, (at, said)
        assert without_time(objects(place)) == without_time(made), at
