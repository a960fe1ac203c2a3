"""Each job crashes before and after every storage operation, loses every reply, and meets a second writer.

Then it runs again, and the objects equal those of a run without a fault. Every operation is tested.
"""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from lobar.evaluation.registry import Champion, Decision
from lobar.storage import records, retry
from lobar.storage.layout import Registry
from lobar.synthetic import phantoms
from tests.conftest import Run
from tests.support.crashes import CHANGES, Crash, Kind, numbered
from tests.support.undisturbed import (
    SMALL,
    Job,
    check_complete,
    read_objects,
    run_all,
    run_undisturbed,
    simple_training,
    without_time,
)

ROOT = "memory:///crash-points"
JOBS = ["demo-data", "label-index", "train", "evaluate", "plan", "predict", "merge-submission", "promote"]
JOBS += ["nothing-new", "rollback", "export"]


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, Job]]:
    """Each job, run without a fault; after that, the waits between attempts are short."""
    with simple_training(), pytest.MonkeyPatch.context() as patch:
        # images made in other processes would be stored in the memory of those
        patch.setattr(phantoms, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
        with numbered() as store:
            jobs = run_all(ROOT, store.operations, labelled=12, new=4)
            images, registry = f"{ROOT}/images", f"{ROOT}/registry"
            options = ["--out", images, "--train", 2, "--test", 1]
            jobs["demo-data"] = run_undisturbed(store.operations, images, "demo-data", *options)
            options = ["--challenger", f"{ROOT}/model", "--dataset", f"{ROOT}/dataset"]
            jobs["promote"] = run_undisturbed(
                store.operations, registry, "promote", *options, "--registry", registry
            )
            options = [*jobs["label-index"].command, *SMALL, "--registry", registry]
            jobs["nothing-new"] = run_undisturbed(store.operations, registry, *options)
            assert {*jobs["nothing-new"].after} == {"000001.json", "000002.json"}
            registry = f"{ROOT}/champions"
            _add_champions(registry, "first", "second", "third")
            options = ["--registry", registry, "--rollback", f"{ROOT}/third"]
            jobs["rollback"] = run_undisturbed(store.operations, registry, "promote", *options)
            assert json.loads(jobs["rollback"].after["000004.json"])["champion"]["model"] == f"{ROOT}/second"
        patch.setattr(retry, "FIRST_WAIT", 0.001)
        yield jobs


def _add_champions(registry: str, *names: str) -> None:
    for number, name in enumerate(names, start=1):
        promoted = Decision(
            number=number, inputs=None, champion=Champion(f"{ROOT}/{name}", ""), promoted=True,
            rolled_back=False, reason="", comparison=None,
        )  # fmt: skip
        records.create(Registry(registry).record(number), promoted)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("kind", [Kind.before, Kind.after])
def test_a_job_that_crashes_at_any_operation_leaves_complete_objects_and_can_continue(
    kind: Kind, job: str, golden: dict[str, Job], run: Run
) -> None:
    for at, operation in enumerate(golden[job].requests, start=1):
        if kind is Kind.after and not operation.startswith(CHANGES):
            continue  # equals a crash before the next operation
        folder = f"{ROOT}/{uuid.uuid4().hex}"
        command = golden[job].prepare(folder)
        with numbered(kind, at), pytest.raises(Crash):
            run(*command)
        check_complete(read_objects(folder), golden[job].after)
        status, _, stderr = run(*command)
        assert status == 0, (at, stderr)
        assert without_time(read_objects(folder)) == without_time(golden[job].after), at


@pytest.mark.parametrize("job", JOBS)
def test_a_lost_reply_to_any_operation_does_not_change_the_result(
    job: str, golden: dict[str, Job], run: Run
) -> None:
    for at in range(1, len(golden[job].requests) + 1):
        folder = f"{ROOT}/{uuid.uuid4().hex}"
        command = golden[job].prepare(folder)
        with numbered(Kind.lost, at) as store:
            status, _, stderr = run(*command)
        assert status == 0, (at, stderr)
        assert len(store.operations) > len(golden[job].requests)
        assert without_time(read_objects(folder)) == without_time(golden[job].after), at


@pytest.mark.parametrize("job", JOBS)
def test_a_second_writer_before_any_operation_does_not_change_the_result(
    job: str, golden: dict[str, Job], run: Run
) -> None:
    """The second writer has completed the same job."""
    expected = golden[job].after

    def other() -> None:
        store = fsspec.filesystem("memory")
        for url in store.find(f"{folder}/checkpoints"):
            store.rm_file(url)
        for name, data in expected.items():
            store.pipe_file(f"{folder}/{name}", data)

    for at in range(1, len(golden[job].requests) + 1):
        folder = f"{ROOT}/{uuid.uuid4().hex}"
        command = golden[job].prepare(folder)
        with numbered(Kind.second, at, other):
            status, _, stderr = run(*command)
        assert status == 0, (at, stderr)
        assert without_time(read_objects(folder)) == without_time(expected), at
