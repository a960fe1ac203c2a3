"""Every job is calm while its store is not: a real S3 server, behind a proxy that goes wrong when told to.

What a fault does to a job does not depend on how long it is waited out, nor on how a network is fitted or a
report drawn: the policy's times are shortened for most tests, and what takes long is computed once.
"""

import asyncio
import hashlib
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
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from dev.servers import Server, serve
from jobs.__main__ import main
from lobar import drivers, evaluation, faults, report, storage, training
from tests.conftest import Run, make_dicom, smooth_noise
from tests.proxy import OF_BODIES, Fault, Kind, Proxy
from tests.stores import use_server

ROOT = "s3://lobar/store-faults"
SMALL = ["--image-size", 32, "--channels", 2, "--blocks", 1, "--depth", 2, "--batch-size", 4, "--epochs", 2]
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
NAMING = ("files", "index", "scores", "slices", "submission", "table")
Objects = dict[str, bytes]
Cause = Callable[..., Fault]


@dataclass(frozen=True)
class Job:
    """A job as it ran undisturbed: command, what lay at its place before and after, requests, and seconds."""

    command: list[Any]
    place: str
    given: Objects
    made: Objects
    requests: list[str]
    seconds: float

    def at(self, place: str) -> list[Any]:
        """The command for another place, with what has to lie there put there."""
        put(place, self.given)
        return [place if argument == self.place else argument for argument in self.command]

    def request(self, moment: str, kind: Kind) -> int:
        """The number of the request in which a moment begins, among those to which such a fault happens."""
        affected = [each for each in self.requests if kind not in OF_BODIES or each.startswith("GET")]
        writes = [i for i, each in enumerate(affected, start=1) if each.startswith(("PUT", "DELETE"))]
        match moment:
            case "reading":
                return len(affected) // 3 + 1
            case "writing":
                return writes[len(writes) // 2 - 1]
        return len(affected)


def objects(place: str) -> Objects:
    found = {}
    for item, data in storage.read_many(storage.list_objects(place)):
        assert isinstance(data, bytes), data
        found[item.url.removeprefix(f"{place}/")] = data
    return found


def put(place: str, given: Objects) -> None:
    for name, data in given.items():
        storage.publish(storage.join(place, name), data)


def without_time(found: Objects) -> dict[str, Any]:
    """Objects as they may be compared: records say when they were made, and nothing else does."""
    compared: dict[str, Any] = {**found}
    for name in found:
        if name.endswith(".json"):
            compared[name] = json.loads(found[name])
            compared[name].pop("created", None)
    return compared


def check_whole(found: Objects, made: Objects) -> None:
    """Every object is that of an undisturbed run or a checkpoint, and what a record names is there."""
    wanted = without_time(made)
    digests = {hashlib.sha256(data).hexdigest() for data in found.values()}
    for name, data in without_time(found).items():
        if name.endswith(".npz"):
            assert hashlib.sha256(data).hexdigest() in name
        elif name.startswith("checkpoints/"):
            assert f"{Path(name).parent}/{data['inputs']['weights']}" in found
        else:
            assert data == wanted[name], name
        if name.endswith(".json"):
            named = json.dumps([json.loads(found[name]).get(key) for key in NAMING])
            assert {*re.findall("[0-9a-f]{64}", named)} <= digests, f"{name} names what is not there"


def last_line(said: str) -> str:
    """The line that tells a person what is wrong; nothing that was said may be a stack trace or a secret."""
    assert not re.search(f"Traceback|Signature=|{os.environ['AWS_SECRET_ACCESS_KEY']}", said)
    return said.splitlines()[-1]


@pytest.fixture(scope="module")
def made_simple() -> Iterator[None]:
    """Let train trace its network once and export a simple one of its weights, and evaluate draw nothing."""
    from keras import Model

    compile_network = training.compile_network
    compiled: list[tuple[Model, list[np.ndarray]]] = []

    def compile_once(options: training.Options) -> Model:
        if not compiled:
            model = compile_network(options)
            compiled.append((model, model.get_weights()))
        model, weights = compiled[0]
        model.set_weights(weights)
        for variable in model.optimizer.variables:
            variable.assign(variable.numpy() * 0)
        return model

    def export(model: Model, path: str, **_: Any) -> None:
        # all named: OpenVINO numbers what is not, through the whole process
        weights = np.concatenate([array.ravel() for array in model.get_weights()])
        levels = ops.parameter([-1, *model.input_shape[1:]], np.uint8, name="levels")
        scaled = ops.divide(
            ops.convert(levels, "f32", name="f"), ops.constant(np.float32(255), name="w"), name="s"
        )
        mean = ops.reduce_mean(ops.constant(weights, name="weights"), ops.constant([0], name="a"), name="m")
        simple = ov.Model([ops.result(ops.add(scaled, mean, name="p"), name="r")], [levels], "simple")
        ov.save_model(simple, path, compress_to_fp16=False)

    def render(found: evaluation.Evaluation, *_: Any) -> bytes:
        return json.dumps(found.scores).encode()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "compile_network", compile_once)
        patch.setattr(
            Model,
            "save",
            lambda model, path, **_: path.write_bytes(b"as Keras writes it, but without the time"),
        )
        patch.setattr(Model, "export", export)
        patch.setattr(report, "render", render)
        yield


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
def golden(proxy: Proxy, made_simple: None) -> Iterator[dict[str, Job]]:
    """Each job as it ran once on a small data set, undisturbed; from then on attempts are short."""
    rows = ["patientId,x,y,width,height,Target"]
    for i in range(24):
        storage.publish(f"{ROOT}/train/p{i}.dcm", make_dicom(smooth_noise(128, 96, i)))
        rows.append(f"p{i},8,8,{20 + i % 5},16,1" if i % 2 else f"p{i},,,,,0")
    for i in range(10):
        storage.publish(f"{ROOT}/test/t{i}.dcm", make_dicom(smooth_noise(64, 64, i)))
    storage.publish(f"{ROOT}/labels.csv", ("\n".join(rows) + "\n").encode())
    dataset, model, prediction = f"{ROOT}/dataset", f"{ROOT}/model", f"{ROOT}/prediction"

    def undisturbed(place: str, *command: Any) -> Job:
        given, first, started = objects(place), len(proxy.requests), time.monotonic()
        with pytest.raises(SystemExit, match=r"^0$"):
            main([str(argument) for argument in command])
        seconds = time.monotonic() - started
        requests = proxy.requests[first:]
        return Job([*command], place, given, objects(place), requests, seconds)

    labels = ["--labels", f"{ROOT}/labels.csv", "--images", f"{ROOT}/train", "--valid-fraction", 0.3]
    images = ["--images", f"{ROOT}/test", "--model", model, "--shards", 2]
    found = {
        "label-index": undisturbed(dataset, "label-index", *labels, "--out", dataset),
        "train": undisturbed(model, "train", "--dataset", dataset, "--out", model, *SMALL),
        "evaluate": undisturbed(model, "evaluate", "--dataset", dataset, "--model", model),
        "plan": undisturbed(prediction, "plan", *images, "--out", prediction),
        "predict": undisturbed(prediction, "predict", "--prediction", prediction, "--shard", 0),
    }
    undisturbed(prediction, "predict", "--prediction", prediction, "--shard", 1)
    found["merge-submission"] = undisturbed(prediction, "merge-submission", "--prediction", prediction)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "ATTEMPT_SECONDS", 0.4)
        patch.setattr(faults, "FIRST_WAIT", 0.02)
        # s3fs sleeps before it passes a failure on
        patch.setattr("s3fs.core.asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": at_once}))
        drivers._filesystem.cache_clear()
        yield found
    drivers._filesystem.cache_clear()


@pytest.fixture
def place(golden: dict[str, Job], proxy: Proxy) -> Iterator[str]:
    """A place in the store where nothing is yet; the store is calm again at the end."""
    drivers.place_of(ROOT)  # made now, a driver keeps to short attempts
    yield f"{ROOT}/{uuid.uuid4().hex}"
    proxy.fault = None


@pytest.fixture
def cause(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Cause:
    """Lets the store go wrong; where it falls silent, it is not listened to for long."""

    def cause_fault(kind: Kind, **which: Any) -> Fault:
        monkeypatch.setattr(faults, "ATTEMPT_SECONDS", 0.25 if kind in STALLS else 20.0)
        proxy.fault = Fault(kind, **which)
        return proxy.fault

    return cause_fault


@pytest.fixture
def patient(golden: dict[str, Job], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attempts as long as they are by default."""
    monkeypatch.setattr(faults, "ATTEMPT_SECONDS", 20.0)
    with use_server({}):
        yield


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
    monkeypatch.setattr(faults, "STORE_SECONDS", 0.2)
    cause(kind, start=golden[job].request(moment, kind))
    started = time.monotonic()
    status, _, said = run(*command)
    seconds = time.monotonic() - started
    proxy.fault = None
    assert status == 75, said
    assert seconds < 2 * golden[job].seconds + 5
    line = last_line(said)
    assert re.search(rf"^error: {ROOT}\S+: {SAID.get(kind, LOST)}.* \(tried \d+ times\)$", line, re.I), line
    left = objects(place)
    check_whole(left, golden[job].made)
    # where nothing was put the next run is a first one
    if left != golden[job].given:
        status, _, said = run(*command)
        assert status == 0, said
        assert without_time(objects(place)) == without_time(golden[job].made)


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
    assert time.monotonic() - started < 3 + 2
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
        assert time.monotonic() - since < 1 + 3
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
    assert storage.create(f"{place}/own", b"mine")
    assert fault.hit == replies
    proxy.fault = None
    storage.publish(f"{place}/other", b"theirs")
    proxy.fault = Fault(Kind.lost_reply, method="PUT", times=replies)
    assert not storage.create(f"{place}/other", b"mine")
    assert storage.read(f"{place}/other") == b"theirs"


def check_refused(run: Run, proxy: Proxy, command: list[Any], wanted: str, requests: int) -> None:
    """The job ends with 2 at once, and says why; nothing is asked for twice."""
    first, started = len(proxy.requests), time.monotonic()
    status, _, said = run(*command)
    assert status == 2, said
    assert time.monotonic() - started < 3
    assert last_line(said).startswith(f"error: {wanted}")
    made = proxy.requests[first:]
    assert len(made) == len(set(made)) == requests, made


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("variable", "answer"),
    [("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"), ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId")],
)
@pytest.mark.parametrize("job", ["label-index", "predict"])
def test_wrong_keys_are_refused_at_once(
    job: str, variable: str, answer: str, golden: dict[str, Job], proxy: Proxy, run: Run
) -> None:
    first = {"label-index": "labels.csv", "predict": "prediction/plan.json"}[job]
    wanted = f"{ROOT}/{first}: access denied (403 {answer}); check the credentials in the environment"
    with use_server({variable: "another-than-that"}):
        check_refused(run, proxy, golden[job].command, wanted, 1)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("option", "requests"), [("--labels", 1), ("--images", 2), ("--out", 27)], ids=str)
def test_a_missing_bucket_is_named_at_once(
    option: str, requests: int, golden: dict[str, Job], proxy: Proxy, run: Run
) -> None:
    command = [*golden["label-index"].command]
    command[command.index(option) + 1] = "s3://no-such-bucket/here"
    check_refused(run, proxy, command, "s3://no-such-bucket/here", requests)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("missing", ["plan.json", "plan/0000.parquet"])
def test_a_missing_object_is_named_at_once(
    missing: str, golden: dict[str, Job], proxy: Proxy, place: str, run: Run
) -> None:
    command = golden["predict"].at(place)
    storage.remove(f"{place}/{missing}")
    check_refused(run, proxy, command, f"{place}/{missing}: ", 1 if missing == "plan.json" else 2)


def test_an_image_that_is_gone_is_named_at_once(
    golden: dict[str, Job], proxy: Proxy, place: str, run: Run
) -> None:
    storage.publish(f"{place}/images/a.dcm", make_dicom(smooth_noise(64, 64)))
    plan = ["plan", "--images", f"{place}/images", "--model", f"{ROOT}/model", "--shards", 1]
    assert run(*plan, "--out", f"{place}/p")[0] == 0
    storage.remove(f"{place}/images/a.dcm")
    status, _, said = run("predict", "--prediction", f"{place}/p", "--shard", 0)
    assert status == 2
    assert last_line(said) == f"error: {place}/images/a.dcm: there is no such object"


def test_a_store_that_is_not_there_is_named(
    golden: dict[str, Job], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "STORE_SECONDS", 0.2)
    with Proxy("http://127.0.0.1:9") as gone:
        pass
    with use_server({"AWS_ENDPOINT_URL": gone.endpoint}):
        status, _, said = run(*golden["predict"].command)
    assert status == 75
    assert re.search(rf"^error: {ROOT}/prediction/plan.json: \w+: Could not connect", last_line(said))
