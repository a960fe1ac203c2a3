"""The page about a workflow that has ended."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lobar.core import request
from lobar.evaluation.record import Evaluation
from lobar.evaluation.report import summary
from lobar.evaluation.report.failures import failures, retries
from lobar.storage import records
from lobar.storage.layout import Model
from lobar.workflow import status
from tests.conftest import Run, World
from tests.support import http
from tests.support.workflow_status import NAME, Attempt, Workflow, served

GPU = "nvidia.com/mig-1g.10gb"
INPUT = "main: Error (exit code 2): 9 of 10\nerror: a.dcm: cut off"
OUTSIDE = "main: Error (exit code 75): error: s3://x: 503"
PATH = "/services/T0/the-secret"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "WAITS_SECONDS", (0.01, 0.0))
    monkeypatch.setattr(request, "TIMEOUT_SECONDS", 0.5)


@pytest.fixture
def workflow() -> Workflow:
    """One that lost a training pod, and whose third shard failed."""
    workflow = Workflow()
    workflow.task("label-index", Attempt(0, 10, 100, resources={"cpu": 95, "memory": 900}))
    resources = {"cpu": 25200, "memory": 900000, GPU: 7200}
    workflow.task("train", Attempt(100, 400, 2400, "pod deleted"), Attempt(2410, 2440, 6040, "", resources))
    for shard in range(3):
        ended = 6500 + 100 * shard
        workflow.task(f"predict({shard}:{shard})", Attempt(6040, 6050 + shard, ended, "", {"cpu": 900}))
    workflow.task("predict(3:3)", Attempt(6040, 6045, 6100, INPUT, {"cpu": 110}))
    return workflow


@pytest.fixture
def webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[http.Request]]:
    """A receiver in LOBAR_WEBHOOK_URL, and what it received."""
    received: list[http.Request] = []

    def answer(asked: http.Request) -> tuple[int, bytes]:
        received.append(asked)
        return 200, b"ok"

    with http.serve(answer, tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        monkeypatch.setenv("LOBAR_WEBHOOK_URL", server.url + PATH + "\n")  # as from a file with a last line
        yield received


def options(tmp_path: Path, status: str = "Failed", chain: str = "full") -> list[str]:
    options = [f"--workflow={NAME}", f"--status={status}", "--seconds=6700.2", f"--chain={chain}"]
    return [*options, f"--out={tmp_path}/summary.txt"]


def test_what_a_workflow_left(world: World, run: Run, tmp_path: Path) -> None:
    model, prediction = world.place("models"), world.place("predictions")
    stored = [f"--model={model}", f"--prediction={prediction}", f"--registry={tmp_path}/unused"]
    with served(tmp_path, Workflow()):
        code, out, _ = run("summary", *options(tmp_path, "Succeeded"), *stored)
    assert code == 0
    assert (tmp_path / "summary.txt").read_text() == out
    lines = out.splitlines()
    assert lines[0] == f"{NAME}: Succeeded after 1:51:40"
    assert lines[1] == f"model file://{model}"
    assert lines[2].startswith("  challenge metric 0.")
    report = records.read(Model(model.as_uri()).evaluation, Evaluation).report
    assert lines[4] == f"  report: file://{model}/report-{report}.html"
    assert not any("registry" in line for line in lines)
    assert f"submission file://{prediction}/submission.csv" in lines
    assert any(line.startswith("  REJECTED broken: ") for line in lines)


def test_what_failed_and_where_the_time_went(run: Run, tmp_path: Path, workflow: Workflow) -> None:
    given = [f"--model={tmp_path}/none", f"--registry={tmp_path}/registry", f"--prediction={tmp_path}/unused"]
    with served(tmp_path, workflow):
        code, out, _ = run(
            "summary",
            *options(tmp_path, chain="retrain"),
            *given,
            "--price-cpu-hour=0.04",
            "--price-gpu-hour=0.6",
        )
    assert code == 0
    assert out.splitlines() == [
        f"{NAME}: Failed after 1:51:40",
        "  predict(3:3): main: Error (exit code 2): error: a.dcm: cut off",
        "    -> the input is wrong: fix what the message names, then submit again",
        "  retried once: train: pod deleted",
        "  where the time went",
        "    task         retries     took   waited      ran  cost",
        "    label-index        0  0:01:40  0:00:10  0:01:30  0.00",
        "    train              1  1:39:00  0:05:30  1:33:20  1.48",
        "    predict (4)        0  0:11:00  0:00:12  0:10:48  0.03",
        "    total              1  1:51:40                    1.51",
        "    cost: without the pods whose end Kubernetes did not report: 1",
        f"model file://{tmp_path}/none: not made",
        f"registry file://{tmp_path}/registry: not made",
    ]


def test_without_prices_there_is_no_cost(workflow: Workflow, tmp_path: Path) -> None:
    with served(tmp_path, workflow):
        lines = summary.tasks(NAME, summary.Prices(0, 0))
    assert lines[4] == "  task         retries     took   waited      ran"
    assert not any("cost" in line for line in lines)


def test_without_the_starts_of_pods_the_rest_is_shown(workflow: Workflow, tmp_path: Path) -> None:
    with served(tmp_path, workflow, codes=(200, 403)):
        lines = summary.tasks(NAME, summary.Prices(0.04, 0.6))
    assert lines[4:] == [
        "  task         retries     took  cost",
        "  label-index        0  0:01:40  0.00",
        "  train              1  1:39:00  1.48",
        "  predict (4)        0  0:11:00  0.03",
        "  total              1  1:51:40  1.51",
        "  cost: without the pods whose end Kubernetes did not report: 1",
        "  waiting times: cannot be read: status 403",
    ]


def test_after_argo_retry_the_earlier_starts_are_not_known(workflow: Workflow, tmp_path: Path) -> None:
    """Argo removes them when a workflow has ended, also if it is then continued."""
    workflow.starts = {key: start for key, start in workflow.starts.items() if start > 6000}
    with served(tmp_path, workflow):
        lines = summary.tasks(NAME, summary.Prices(0, 0))
    assert lines[4:8] == [
        "  task         retries     took   waited      ran",
        "  label-index        0  0:01:40        ?        ?",
        "  train              1  1:39:00        ?        ?",
        "  predict (4)        0  0:11:00  0:00:12  0:10:48",
    ]


def test_a_pod_that_never_started_only_waited(tmp_path: Path) -> None:
    workflow = Workflow()
    workflow.task("train", Attempt(0, None, 3600, "retry exceeded workflow deadline"))
    with served(tmp_path, workflow):
        lines = summary.tasks(NAME, summary.Prices(0.04, 0.6))
    assert lines == [
        "train: retry exceeded workflow deadline",
        "  -> if the pod never started: check that its node pool and the container image exist",
        "where the time went",
        "  task   retries     took   waited      ran  cost",
        "  train        0  1:00:00  1:00:00  0:00:00  0.00",
        "  total        0  1:00:00                    0.00",
    ]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_hundreds_of_failed_pods_are_a_few_lines(run: Run, tmp_path: Path, compressed: bool) -> None:
    """Beyond 128 KiB, the list of them would not fit into an argument."""
    workflow = Workflow()
    for shard in range(64):
        pods = [Attempt(100 * n, 100 * n + 5, 100 * n + 90, f"{OUTSIDE} {'x' * 200}") for n in range(6)]
        workflow.task(f"predict({shard}:{shard})", *pods)
    assert len(json.dumps(workflow.nodes)) > 128 * 1024
    document = workflow.compressed() if compressed else workflow.document()
    with served(tmp_path, workflow, document):
        code, out, _ = run("summary", *options(tmp_path))
    lines = [re.sub("x{100,}", "…", line) for line in out.splitlines()]
    assert code == 0
    assert lines == [
        f"{NAME}: Failed after 1:51:40",
        f"  predict(0:0), predict(10:10), predict(11:11) and 61 more: {OUTSIDE} …",
        "    -> external failure: submit again with the same dataset, model and prediction",
        f"  retried 320 times: predict: {OUTSIDE} …",
        "  where the time went",
        "    task          retries     took   waited      ran",
        "    predict (64)      320  0:09:50  0:00:30  0:08:30",
        "    total             320  0:09:50",
    ]


def test_many_reasons_are_counted(tmp_path: Path) -> None:
    workflow = Workflow()
    for number, message in enumerate(["a", "b", "b", "c", "d", "e"]):
        workflow.task(f"predict({number}:{number})", Attempt(0, 1, 2, message), Attempt(3, 4, 5))
    with served(tmp_path, workflow):
        assert [*retries(status.nodes(NAME))] == [
            "retried 2 times: predict: b",
            "retried once: predict: a",
            "retried once: predict: c",
            "retried for 2 other reasons as well",
        ]


def test_a_node_that_failed_because_another_did_is_left_out(tmp_path: Path) -> None:
    workflow = Workflow()
    workflow.node(".predict", "TaskGroup", "Failed", 0, 1)
    workflow.node(".train", "DAG", "Error", 0, 1, message="task 'x' errored: invalid")
    workflow.task("plan", Attempt(0, 1, 2, "OOMKilled (exit code 137)"))
    with served(tmp_path, workflow):
        assert [*failures(status.nodes(NAME))] == [
            "plan: OOMKilled (exit code 137)",
            "  -> out of memory: raise the template's memory limit",
            "train: task 'x' errored: invalid",
        ]


@pytest.mark.parametrize(
    ("document", "codes", "reason"),
    [
        (Workflow().offloaded(), (200, 200), "its nodes are in Argo's database"),
        (None, (403, 403), "status 403"),
        (None, (500, 500), "status 500"),
    ],
)
def test_a_workflow_that_cannot_be_read_is_reported(
    run: Run, tmp_path: Path, workflow: Workflow, document: object, codes: tuple[int, int], reason: str
) -> None:
    with served(tmp_path, workflow, document, codes):
        code, out, _ = run("summary", *options(tmp_path), f"--model={tmp_path}/none")
    assert code == 0
    assert out.splitlines()[1:] == [
        f"  tasks: cannot be read: {reason}; argo get {NAME} shows them",
        f"model file://{tmp_path}/none: not made",
    ]


def test_the_first_line_is_posted_to_the_webhook(
    run: Run, tmp_path: Path, webhook: list[http.Request]
) -> None:
    code, out, err = run("summary", *options(tmp_path))
    assert code == 0
    (asked,) = webhook
    assert (asked.method, asked.path) == ("POST", PATH)
    assert json.loads(asked.body) == {"text": f"{NAME}: Failed after 1:51:40"}
    assert "message sent" in err
    assert "webhook" not in out
    assert "the-secret" not in out + err


def test_without_a_webhook_no_message_is_sent(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOBAR_WEBHOOK_URL", raising=False)
    code, out, err = run("summary", *options(tmp_path))
    assert code == 0
    assert "webhook" not in out
    assert "no message sent: LOBAR_WEBHOOK_URL is empty" in err


@contextmanager
def _receiver(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a receiver that takes no message."""
    answer = (404 if kind == "rejects" else 500), b""
    with http.serve(lambda _: answer, folder) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        yield {
            "does not reply": f"http://127.0.0.1:{silent.getsockname()[1]}{PATH}",
            "is not there": f"https://127.0.0.1:9{PATH}",
            "is not a URL": "the-secret",
            "is not a host": f"https://x y{PATH}",
        }.get(kind, server.url + PATH)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("rejects", "status 404"),
        ("fails", "status 500"),
        ("does not reply", "no reply within 0.5 s"),
        ("is not there", "Connection refused"),
        ("is not a URL", "the URL does not begin with https://"),
        ("is not a host", "invalid URL"),
    ],
)
def test_a_message_that_cannot_be_sent_is_reported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reason: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with _receiver(kind, tmp_path) as url:
        monkeypatch.setenv("LOBAR_WEBHOOK_URL", url)
        code, out, err = run("summary", *options(tmp_path))
    assert code == 0
    assert (tmp_path / "summary.txt").read_text() == out
    assert re.search(f"^no message sent to the webhook: .*{reason}", out, re.MULTILINE)
    assert "the-secret" not in out + err


def test_a_record_that_cannot_be_read_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("{")
    (first, *rest) = summary.stored(Model(tmp_path.as_uri()), None, None)
    assert "cannot be read" in first
    assert not rest
