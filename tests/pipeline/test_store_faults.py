"""Each job with faults of its store: a real S3 server, behind a proxy that injects them.

The effect of a fault does not depend on the length of the waits, the training or the report. So most tests
shorten the times of the retry policy, and the slow steps are computed once (conftest.py). Single operations
of every store are tested in tests/storage/test_faulty_servers.py.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dev.servers import Server, serve
from lobar.storage import objects as store
from lobar.storage import retry
from tests.conftest import Run, make_dicom, smooth_noise
from tests.pipeline.conftest import ROOT, STALLS, InjectFault
from tests.support.proxy import Fault, Kind, Proxy
from tests.support.stores import use_server
from tests.support.undisturbed import (
    Job,
    check_complete,
    last_line,
    read_objects,
    without_time,
    write_objects,
)

JOBS = ["label-index", "train", "evaluate", "plan", "predict", "merge-submission", "export"]
LASTING_KINDS = [kind for kind in Kind if kind is not Kind.delay]
# every job with every kind of fault once, half of them at either moment
LASTING_FAULTS = [
    (job, kind, ("reading", "at-the-end")[(i + j) % 2])
    for i, job in enumerate(JOBS)
    for j, kind in enumerate(LASTING_KINDS)
] + [(job, Kind.internal, "writing") for job in JOBS]
NO_RESPONSE = "(the store does not respond|ReadTimeoutError)"
# error messages; those of a lost connection differ from run to run
MESSAGES = {
    Kind.stall: NO_RESPONSE,
    Kind.stall_in_body: NO_RESPONSE,
    Kind.slow_down: "the store returned 503",
    Kind.too_many: "the store returned 429",
    Kind.internal: "the store returned 500",
    Kind.garbage: r"\w+Error: .*status",
}
LOST = r"\w+Error: .*(closed|reset|disconnected|not completed|could not connect)"


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("job", JOBS)
def test_transient_faults_do_not_change_the_result(
    job: str, kind: Kind, golden: dict[str, Job], proxy: Proxy, inject: InjectFault, folder: str, run: Run
) -> None:
    command = golden[job].prepare(folder)
    # about four faults, from the first request to the last; not every third request: an empty listing takes
    # three requests, so one of them would fail in every attempt
    every = max(4, len(golden[job].requests) // 4)
    fault = inject(kind, every=every, times=2 if kind in STALLS else None)
    status, _, stderr = run(*command)
    assert status == 0, stderr
    assert fault.hit
    proxy.fault = None
    assert without_time(read_objects(folder)) == without_time(golden[job].after)


@pytest.mark.parametrize(("job", "kind", "moment"), LASTING_FAULTS)
def test_a_lasting_fault_exits_with_75_and_the_next_run_continues(
    job: str,
    kind: Kind,
    moment: str,
    golden: dict[str, Job],
    proxy: Proxy,
    inject: InjectFault,
    folder: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = golden[job].prepare(folder)
    monkeypatch.setattr(retry, "STORE_SECONDS", 0.2)
    # not limited by STORE_SECONDS: a request that a busy machine delays would fail as well
    monkeypatch.setattr(retry, "attempt_seconds", lambda: retry.ATTEMPT_SECONDS)
    inject(kind, start=golden[job].request(moment, kind))
    started = time.monotonic()
    status, _, stderr = run(*command)
    seconds = time.monotonic() - started
    proxy.fault = None
    monkeypatch.undo()  # no short times from here on
    assert status == 75, stderr
    assert seconds < 2 * golden[job].seconds + 20
    line = last_line(stderr)
    assert re.search(rf"^error: {ROOT}\S+: {MESSAGES.get(kind, LOST)}.* \(tried \d+ times\)$", line, re.I), (
        line
    )
    remaining = read_objects(folder)
    check_complete(remaining, golden[job].after)
    # if nothing was written, the next run would equal a first one
    if remaining != golden[job].before:
        status, _, stderr = run(*command)
        assert status == 0, stderr
        assert without_time(read_objects(folder)) == without_time(golden[job].after)


def test_credentials_are_in_no_object(golden: dict[str, Job], s3_server: Server) -> None:
    for job in golden.values():
        for name, data in job.after.items():
            for secret in (s3_server.access_key, s3_server.secret_key):
                assert secret.encode() not in data, name


def start(command: list[Any], **environment: str) -> subprocess.Popen[str]:
    """Start a job as in a container, with the times of the retry policy."""
    arguments = [sys.executable, "-m", "jobs", *map(str, command)]
    return subprocess.Popen(arguments, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


def test_a_store_that_does_not_respond_ends_a_process_at_its_deadline(
    golden: dict[str, Job], proxy: Proxy, folder: str, run: Run
) -> None:
    command = golden["predict"].prepare(folder)
    proxy.fault = fault = Fault(Kind.stall, path="/test/")
    running = start(command, LOBAR_STORE_SECONDS="1")
    assert running.stderr is not None
    while not fault.hit and running.poll() is None:
        time.sleep(0.02)
    started = time.monotonic()
    stderr = running.communicate()[1]
    # an attempt, one second of retries, and the last of them may take as long again
    assert time.monotonic() - started < 3 + 12
    assert running.returncode == 75, stderr
    assert re.search(rf"^error: {ROOT}/test/t\d.dcm: the store does not respond", last_line(stderr))
    proxy.fault = None
    assert run(*command)[0] == 0
    assert without_time(read_objects(folder)) == without_time(golden["predict"].after)


def test_a_killed_server_ends_a_job_at_its_deadline_or_is_retried_until_it_restarts(
    golden: dict[str, Job], s3_server: Server, tmp_path: Path
) -> None:
    inputs = {url: read_objects(url) for url in (f"{ROOT}/test", f"{ROOT}/model")}
    keys = (s3_server.access_key, s3_server.secret_key)
    with ExitStack() as stack:
        server = stack.enter_context(serve("s3", tmp_path, keys=keys))
        port = int(server.endpoint.rsplit(":", 1)[1])
        proxy = stack.enter_context(Proxy(server.endpoint))
        stack.enter_context(use_server({"AWS_ENDPOINT_URL": proxy.endpoint}))
        for url, objects in inputs.items():
            write_objects(url, objects)
        command = golden["predict"].prepare(f"{ROOT}/own")
        # slow enough to be killed in the middle
        proxy.fault = Fault(Kind.delay)

        def start_job_and_kill(server: Server, store_seconds: str) -> subprocess.Popen[str]:
            half = len(proxy.requests) + len(golden["predict"].requests) // 2
            running = start(command, LOBAR_STORE_SECONDS=store_seconds)
            while len(proxy.requests) < half:
                assert running.poll() is None, running.communicate()
                time.sleep(0.01)
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            return running

        running, started = start_job_and_kill(server, "1"), time.monotonic()
        stderr = running.communicate()[1]
        assert time.monotonic() - started < 1 + 14
        assert running.returncode == 75
        assert re.search(rf"^error: {ROOT}\S+: {LOST}", last_line(stderr), re.I), stderr
        with serve("s3", tmp_path, port, keys) as server:
            running = start_job_and_kill(server, "60")
        with serve("s3", tmp_path, port, keys):
            stderr = running.communicate()[1]
            assert running.returncode == 0, stderr
            assert without_time(read_objects(f"{ROOT}/own")) == without_time(golden["predict"].after)


def check_rejected(run: Run, proxy: Proxy, command: list[Any], message: str, requests: int) -> None:
    """The job exits with 2 at once and with this message; no request is repeated."""
    first, started = len(proxy.requests), time.monotonic()
    status, _, stderr = run(*command)
    assert status == 2, stderr
    assert time.monotonic() - started < 20
    assert last_line(stderr).startswith(f"error: {message}")
    sent = proxy.requests[first:]
    assert len(sent) == len(set(sent)) == requests, sent


@pytest.mark.parametrize(
    ("variable", "answer"),
    [("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"), ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId")],
)
@pytest.mark.parametrize("job", ["label-index", "predict"])
def test_wrong_keys_are_rejected_at_once(
    job: str, variable: str, answer: str, golden: dict[str, Job], proxy: Proxy, run: Run
) -> None:
    first = {"label-index": "labels.csv", "predict": "prediction/plan.json"}[job]
    message = f"{ROOT}/{first}: access denied (403 {answer}); check the credentials in the environment"
    with use_server({variable: "a-wrong-key"}):
        check_rejected(run, proxy, golden[job].command, message, 1)


@pytest.mark.parametrize(("option", "requests"), [("--labels", 1), ("--images", 2), ("--out", 27)], ids=str)
def test_a_missing_bucket_is_named_at_once(
    option: str, requests: int, golden: dict[str, Job], proxy: Proxy, run: Run
) -> None:
    command = [*golden["label-index"].command]
    command[command.index(option) + 1] = "s3://no-such-bucket/here"
    check_rejected(run, proxy, command, "s3://no-such-bucket/here", requests)


@pytest.mark.parametrize("missing", ["plan.json", "slice"])
def test_a_missing_object_is_named_at_once(
    missing: str, golden: dict[str, Job], proxy: Proxy, folder: str, run: Run
) -> None:
    command = golden["predict"].prepare(folder)
    if missing == "slice":
        first = json.loads(store.read(f"{folder}/plan.json"))["slices"][0]
        missing = f"plan/{first}.parquet"
    store.remove(f"{folder}/{missing}")
    check_rejected(run, proxy, command, f"{folder}/{missing}: ", 1 if missing == "plan.json" else 2)


def test_a_deleted_image_is_named_at_once(
    golden: dict[str, Job], proxy: Proxy, folder: str, run: Run
) -> None:
    store.publish(f"{folder}/images/a.dcm", make_dicom(smooth_noise(64, 64)))
    plan = ["plan", "--images", f"{folder}/images", "--model", f"{ROOT}/model", "--shards", 1]
    assert run(*plan, "--out", f"{folder}/p")[0] == 0
    store.remove(f"{folder}/images/a.dcm")
    status, _, stderr = run("predict", "--prediction", f"{folder}/p", "--shard", 0)
    assert status == 2
    assert last_line(stderr) == f"error: {folder}/images/a.dcm: there is no such object"


def test_an_unreachable_store_is_named(
    golden: dict[str, Job], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "STORE_SECONDS", 0.2)
    with Proxy("http://127.0.0.1:9") as stopped:
        pass
    with use_server({"AWS_ENDPOINT_URL": stopped.endpoint}):
        status, _, stderr = run(*golden["predict"].command)
    assert status == 75
    assert re.search(rf"^error: {ROOT}/prediction/plan.json: \w+: Could not connect", last_line(stderr))
