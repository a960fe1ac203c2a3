"""A workflow with more shards than this machine could run: Argo's controller is real, the node a mock."""

import json

import pytest

from tests.cluster.common import GIVEN, summary
from tests.support import stub_node
from tests.support.argo import submit

pytestmark = pytest.mark.cluster
SHARDS = 1_000_000 // 4_000  # as `plan` computes it from images-per-shard
OBJECT_BYTES = 1 << 20  # beyond that, Argo compresses the nodes


def test_a_million_images_are_250_shards_of_one_workflow() -> None:
    outputs = {
        "plan": {"shards": str(SHARDS)},
        "merge-submission": {"rows": "1000000", "with-boxes": "300000", "rejected": "0"},
    }
    with stub_node.stub_node(outputs):
        run = submit("workflows/predict.yaml", GIVEN | stub_node.PARAMETERS)
        run.expect_success()
    document = run.document()
    predicted = [node for node in run.nodes().values() if node["displayName"].startswith("predict(")]
    shards = [
        next(item["value"] for item in node["inputs"]["parameters"] if item["name"] == "shard")
        for node in predicted
        if node["type"] == "Pod"
    ]
    assert sorted(shards, key=int) == [str(number) for number in range(SHARDS)]
    assert len(json.dumps(document["status"])) < OBJECT_BYTES
    assert f"  predict ({SHARDS}) " in summary(run)
