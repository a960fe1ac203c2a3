"""Every job is calm while its store is not: a real S3 server, behind a proxy that goes wrong when told to.

What a fault does to a job does not depend on how long it is waited out, nor on how a network is fitted or a
report drawn: the policy's times are shortened for most tests, and what takes long is computed once.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dev.servers import Server, serve
from lobar.storage import filesystem, retry
from lobar.storage import objects as store
from tests.conftest import Run, make_dicom, smooth_noise
from tests.support.proxy import Fault, Kind, Proxy
from tests.support.stores import use_server
from tests.support.undisturbed import (
    Job,
    check_whole,
    last_line,
    objects,
    put,
    run_all,
    simple_training,
    without_time,
)

ROOT = "s3://lobar/store-faults"
JOBS = ["label-index", "train", "evaluate", "plan", "predict", "merge-submission"]
LASTING = [kind for kind in Kind if kind is not Kind.delay]
# every job meets every kind once, and each of the moments with half of them
TROUBLES = [
    (job, kind, ("reading", "at-the-end")[(i + j) % 2])
    for i, job in enumerate(JOBS)
    for j, kind in enumerate(LASTING)
] + [(job, Kind.internal, "writing") for job in JOBS]
STALLS = {Kind.stall, Kind.stall_in_body}
SILENCE = "(the store does not answer|ReadTimeoutError)"
# what a person is told; how a lost connection shows differs from run to run
SAID = {
    Kind.stall: SILENCE,
    Kind.stall_in_body: SILENCE,
    Kind.slow_down: "the store answers 503",
    Kind.too_many: "the store answers 429",
    Kind.internal: "the store answers 500",
    Kind.garbage: r"\w+Error: .*status",
}
LOST = r"\w+Error: .*(closed|reset|disconnected|not completed|could not connect)"
Cause = Callable[..., Fault]


@pytest.fixture(scope="module")
def proxy(s3_server: Server) -> Iterator[Proxy]:
    """A proxy in front of the store, and an environment that leads there."""
    with (
        Proxy(s3_server.endpoint) as proxy,
        use_server({**s3_server.environment, "AWS_ENDPOINT_URL": proxy.endpoint}),
    ):
        yield proxy


async def at_once(seconds: float) -> None:
    """A sleep that does not last."""


@pytest.fixture(scope="module")
def golden(proxy: Proxy) -> Iterator[dict[str, Job]]:
    """Each job as it ran undisturbed; from then on the waits between tries are short."""
    with simple_training(), pytest.MonkeyPatch.context() as patch:
        found = run_all(ROOT, proxy.requests)
        patch.setattr(retry, "FIRST_WAIT", 0.02)
        # s3fs sleeps before it passes a failure on
        patch.setattr("s3fs.core.asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": at_once}))
        yield found


@pytest.fixture(scope="module")
def hasty_driver(golden: dict[str, Job]) -> Any:
    """A driver that does not listen long to silence; its limits are fixed when it is made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "ATTEMPT_SECONDS", 0.4)
        filesystem._filesystem.cache_clear()
        driver = filesystem.place_of(ROOT).fs
    filesystem._filesystem.cache_clear()
    return driver


@pytest.fixture
def place(proxy: Proxy) -> Iterator[str]:
    """A place in the store where nothing is yet; the store is calm again at the end."""
    yield f"{ROOT}/{uuid.uuid4().hex}"
    proxy.fault = None


@pytest.fixture
def cause(proxy: Proxy, hasty_driver: Any, monkeypatch: pytest.MonkeyPatch) -> Cause:
    """Lets the store go wrong; where it falls silent, it is not listened to for long."""

    def cause_fault(kind: Kind, **which: Any) -> Fault:
        if kind in STALLS:
            monkeypatch.setattr(retry, "ATTEMPT_SECONDS", 0.25)
            monkeypatch.setattr(filesystem, "_filesystem", lambda scheme: hasty_driver)
        proxy.fault = Fault(kind, **which)
        return proxy.fault

    return cause_fault


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("job", JOBS)
def test_faults_that_pass_change_nothing(
    job: str, kind: Kind, golden: dict[str, Job], proxy: Proxy, cause: Cause, place: str, run: Run
) -> None:
    command = golden[job].at(place)
    # four or so, from the first request to the last; never every third: an empty listing takes three
    # requests, of which one would fail at every try
    every = max(4, len(golden[job].requests) // 4)
    fault = cause(kind, every=every, times=2 if kind in STALLS else None)
    status, _, said = run(*command)
    assert status == 0, said
    assert fault.hit
    proxy.fault = None
    assert without_time(objects(place)) == without_time(golden[job].made)


@pytest.mark.parametrize(("job", "kind", "moment"), TROUBLES)
def test_a_fault_that_stays_ends_with_75_and_the_next_run_goes_on(
    job: str,
    kind: Kind,
    moment: str,
    golden: dict[str, Job],
    proxy: Proxy,
    cause: Cause,
    place: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = golden[job].at(place)
    monkeypatch.setattr(retry, "STORE_SECONDS", 0.2)
    cause(kind, start=golden[job].request(moment, kind))
    started = time.monotonic()
    status, _, said = run(*command)
    seconds = time.monotonic() - started
    proxy.fault = None
    monkeypatch.undo()  # what is read and run from here on may take its time
    assert status == 75, said
    assert seconds < 2 * golden[job].seconds + 20
    line = last_line(said)
    assert re.search(rf"^error: {ROOT}\S+: {SAID.get(kind, LOST)}.* \(tried \d+ times\)$", line, re.I), line
    left = objects(place)
    check_whole(left, golden[job].made)
    # where nothing was put the next run is a first one
    if left != golden[job].given:
        status, _, said = run(*command)
        assert status == 0, said
        assert without_time(objects(place)) == without_time(golden[job].made)


def test_credentials_are_in_no_object(golden: dict[str, Job], s3_server: Server) -> None:
    for job in golden.values():
        for name, data in job.made.items():
            for secret in (s3_server.access_key, s3_server.secret_key):
                assert secret.encode() not in data, name


def process(command: list[Any], **environment: str) -> subprocess.Popen[str]:
    """A job as a container runs it, with the policy's own times."""
    arguments = [sys.executable, "-m", "jobs", *map(str, command)]
    return subprocess.Popen(arguments, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


def test_a_store_that_falls_silent_holds_no_process_beyond_its_deadline(
    golden: dict[str, Job], proxy: Proxy, place: str, run: Run
) -> None:
    command = golden["predict"].at(place)
    proxy.fault = fault = Fault(Kind.stall, path="/test/")
    running = process(command, LOBAR_STORE_SECONDS="1")
    assert running.stderr is not None
    while not fault.hit and running.poll() is None:
        time.sleep(0.02)
    started = time.monotonic()
    said = running.communicate()[1]
    # an attempt, a second of further tries, and the last of these may take another
    assert time.monotonic() - started < 3 + 12
    assert running.returncode == 75, said
    assert re.search(rf"^error: {ROOT}/test/t\d.dcm: the store does not answer", last_line(said))
    proxy.fault = None
    assert run(*command)[0] == 0
    assert without_time(objects(place)) == without_time(golden["predict"].made)


def test_a_server_that_is_killed_is_given_up_in_time_or_outlived(
    golden: dict[str, Job], s3_server: Server, tmp_path: Path
) -> None:
    given = {place: objects(place) for place in (f"{ROOT}/test", f"{ROOT}/model")}
    keys = (s3_server.access_key, s3_server.secret_key)
    with ExitStack() as stack:
        server = stack.enter_context(serve("s3", tmp_path, keys=keys))
        port = int(server.endpoint.rsplit(":", 1)[1])
        proxy = stack.enter_context(Proxy(server.endpoint))
        stack.enter_context(use_server({"AWS_ENDPOINT_URL": proxy.endpoint}))
        for place, found in given.items():
            put(place, found)
        command = golden["predict"].at(f"{ROOT}/own")
        # so slow that there is a middle to be killed in
        proxy.fault = Fault(Kind.delay)

        def run_and_kill(server: Server, patience: str) -> subprocess.Popen[str]:
            half = len(proxy.requests) + len(golden["predict"].requests) // 2
            running = process(command, LOBAR_STORE_SECONDS=patience)
            while len(proxy.requests) < half:
                assert running.poll() is None, running.communicate()
                time.sleep(0.01)
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            return running

        running, since = run_and_kill(server, "1"), time.monotonic()
        said = running.communicate()[1]
        assert time.monotonic() - since < 1 + 14
        assert running.returncode == 75
        assert re.search(rf"^error: {ROOT}\S+: {LOST}", last_line(said), re.I), said
        with serve("s3", tmp_path, port, keys) as server:
            running = run_and_kill(server, "60")
        with serve("s3", tmp_path, port, keys):
            said = running.communicate()[1]
            assert running.returncode == 0, said
            assert without_time(objects(f"{ROOT}/own")) == without_time(golden["predict"].made)


@pytest.mark.parametrize("replies", [1, 2, 3])
def test_a_create_whose_reply_is_lost_knows_its_own_object(
    replies: int, proxy: Proxy, golden: dict[str, Job], place: str
) -> None:
    proxy.fault = fault = Fault(Kind.lost_reply, method="PUT", times=replies)
    assert store.create(f"{place}/own", b"mine")
    assert fault.hit == replies
    proxy.fault = None
    store.publish(f"{place}/other", b"theirs")
    proxy.fault = Fault(Kind.lost_reply, method="PUT", times=replies)
    assert not store.create(f"{place}/other", b"mine")
    assert store.read(f"{place}/other") == b"theirs"


def check_rejected(run: Run, proxy: Proxy, command: list[Any], wanted: str, requests: int) -> None:
    """The job ends with 2 at once, and says why; nothing is asked for twice."""
    first, started = len(proxy.requests), time.monotonic()
    status, _, said = run(*command)
    assert status == 2, said
    assert time.monotonic() - started < 20
    assert last_line(said).startswith(f"error: {wanted}")
    made = proxy.requests[first:]
    assert len(made) == len(set(made)) == requests, made


@pytest.mark.parametrize(
    ("variable", "answer"),
    [("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"), ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId")],
)
@pytest.mark.parametrize("job", ["label-index", "predict"])
def test_wrong_keys_are_rejected_at_once(
    job: str, variable: str, answer: str, golden: dict[str, Job], proxy: Proxy, run: Run
) -> None:
    first = {"label-index": "labels.csv", "predict": "prediction/plan.json"}[job]
    wanted = f"{ROOT}/{first}: access denied (403 {answer}); check the credentials in the environment"
    with use_server({variable: "another-than-that"}):
        check_rejected(run, proxy, golden[job].command, wanted, 1)


@pytest.mark.parametrize(("option", "requests"), [("--labels", 1), ("--images", 2), ("--out", 27)], ids=str)
def test_a_missing_bucket_is_named_at_once(
    option: str, requests: int, golden: dict[str, Job], proxy: Proxy, run: Run
) -> None:
    command = [*golden["label-index"].command]
    command[command.index(option) + 1] = "s3://no-such-bucket/here"
    check_rejected(run, proxy, command, "s3://no-such-bucket/here", requests)


@pytest.mark.parametrize("missing", ["plan.json", "slice"])
def test_a_missing_object_is_named_at_once(
    missing: str, golden: dict[str, Job], proxy: Proxy, place: str, run: Run
) -> None:
    command = golden["predict"].at(place)
    if missing == "slice":
        first = json.loads(store.read(f"{place}/plan.json"))["slices"][0]
        missing = f"plan/{first}.parquet"
    store.remove(f"{place}/{missing}")
    check_rejected(run, proxy, command, f"{place}/{missing}: ", 1 if missing == "plan.json" else 2)


def test_an_image_that_is_gone_is_named_at_once(
    golden: dict[str, Job], proxy: Proxy, place: str, run: Run
) -> None:
    store.publish(f"{place}/images/a.dcm", make_dicom(smooth_noise(64, 64)))
    plan = ["plan", "--images", f"{place}/images", "--model", f"{ROOT}/model", "--shards", 1]
    assert run(*plan, "--out", f"{place}/p")[0] == 0
    store.remove(f"{place}/images/a.dcm")
    status, _, said = run("predict", "--prediction", f"{place}/p", "--shard", 0)
    assert status == 2
    assert last_line(said) == f"error: {place}/images/a.dcm: there is no such object"


def test_a_store_that_is_not_there_is_named(
    golden: dict[str, Job], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "STORE_SECONDS", 0.2)
    with Proxy("http://127.0.0.1:9") as gone:
        pass
    with use_server({"AWS_ENDPOINT_URL": gone.endpoint}):
        status, _, said = run(*golden["predict"].command)
    assert status == 75
    assert re.search(rf"^error: {ROOT}/prediction/plan.json: \w+: Could not connect", last_line(said))
