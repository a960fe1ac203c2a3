"""How the pods of a workflow on a cluster went, read from an API server."""

from datetime import timedelta
from pathlib import Path

import pytest

from lobar.core import request
from lobar.core.errors import LobarError
from lobar.workflow import status
from tests.support.workflow_status import NAME, START, Attempt, Workflow, served


@pytest.fixture
def workflow() -> Workflow:
    workflow = Workflow()
    lost = Attempt(100, None, 160, "pod deleted")
    again = Attempt(170, 200, 300, resources={"cpu": 700, "memory": 24000, "nvidia.com/gpu": 100})
    workflow.task("train", lost, again)
    workflow.task("label-index", Attempt(2, 5, 90, resources={"cpu": 90}))
    return workflow


def test_nodes_are_those_of_the_tasks_in_order(workflow: Workflow, tmp_path: Path) -> None:
    with served(tmp_path, workflow):
        nodes = status.nodes(NAME)
    names = [NAME, "label-index", "label-index(0)", "train", "train(0)", "train(1)"]
    assert [node.display_name for node in nodes.values()] == names
    (train,) = (node for node in nodes.values() if node.display_name == "train")
    first, second = (nodes[key] for key in status.attempts(nodes, train))
    assert (first.phase, first.message, first.resources_duration) == ("Failed", "pod deleted", {})
    assert (first.task, second.task) == ("train", "train")
    assert second.finished_at == START + timedelta(seconds=300)
    assert second.resources_duration["nvidia.com/gpu"] == 100


def test_compressed_nodes_are_the_same(workflow: Workflow, tmp_path: Path) -> None:
    with served(tmp_path, workflow):
        plain = status.nodes(NAME)
    with served(tmp_path, workflow, workflow.compressed()):
        assert status.nodes(NAME) == plain


def test_starts_are_those_of_the_pods_that_started(workflow: Workflow, tmp_path: Path) -> None:
    with served(tmp_path, workflow):
        nodes, starts = status.nodes(NAME), status.container_starts(NAME)
    assert {nodes[key].display_name: (start - START).seconds for key, start in starts.items()} == {
        "label-index(0)": 5,
        "train(1)": 200,
    }


def test_nodes_in_a_database_are_an_error(workflow: Workflow, tmp_path: Path) -> None:
    with served(tmp_path, workflow, workflow.offloaded()), pytest.raises(LobarError, match="Argo's database"):
        status.nodes(NAME)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"status": {"compressedNodes": "bm90IGd6aXA="}}, "its compressed nodes are damaged"),
        ({"status": {"compressedNodes": "H4sI"}}, "its compressed nodes are damaged"),
        ({"status": {"nodes": {"a": {"type": "Pod"}}}}, "the API server's reply is not one about a workflow"),
        ("<html>", "the API server's reply is not one about a workflow"),
    ],
)
def test_another_reply_is_an_error(
    workflow: Workflow, tmp_path: Path, document: object, message: str
) -> None:
    with served(tmp_path, workflow, document), pytest.raises(LobarError, match=message):
        status.nodes(NAME)


def test_an_account_without_the_right_is_an_error(workflow: Workflow, tmp_path: Path) -> None:
    with served(tmp_path, workflow, codes=(403, 403)) as api:
        for read in (status.nodes, status.container_starts):
            with pytest.raises(LobarError, match=r"^status 403$"):
                read(NAME)
    assert len(api.paths) == 2


def test_an_api_server_that_is_not_there_is_an_error(
    workflow: Workflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "WAITS_SECONDS", (0.01, 0.0))
    with served(tmp_path, workflow):
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
        with pytest.raises(LobarError, match="Connection refused"):
            status.nodes(NAME)


def test_a_process_outside_a_pod_has_no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "ACCOUNT", tmp_path)
    with pytest.raises(LobarError, match="no service account in this pod"):
        status.nodes(NAME)
