"""A workflow with more shards than this machine could run: Argo's controller is real, the node a mock."""

import json
from pathlib import Path

import pytest
import yaml

from tests.cluster.common import GIVEN
from tests.support.argo import REPOSITORY, submit
from tests.support.stub_node import NODE_SELECTOR, TOLERATIONS, stub_node

pytestmark = pytest.mark.cluster
SHARDS = 1_000_000 // 4_000  # as `plan` computes it from images-per-shard
OBJECT_BYTES = 1 << 20  # beyond that, Argo compresses the nodes


def test_a_million_images_are_250_shards_of_one_workflow(tmp_path: Path) -> None:
    outputs = {
        "plan": {"shards": str(SHARDS)},
        "merge-submission": {"rows": "1000000", "with-boxes": "300000", "rejected": "0"},
    }
    workflow = yaml.safe_load((REPOSITORY / "workflows/predict.yaml").read_text())
    workflow["spec"] |= {"nodeSelector": NODE_SELECTOR, "tolerations": TOLERATIONS}
    file = tmp_path / "predict.yaml"
    file.write_text(yaml.safe_dump(workflow))
    # the parameters as well, because they replace the tolerations of some pods
    placed = {"nodes": json.dumps(NODE_SELECTOR), "tolerations": json.dumps(TOLERATIONS)}
    with stub_node(outputs):
        run = submit(str(file), GIVEN | placed)
        run.expect_success()
    shards = [
        next(item["value"] for item in node["inputs"]["parameters"] if item["name"] == "shard")
        for node in run.nodes().values()
        if node["type"] == "Pod" and node["displayName"].startswith("predict(")
    ]
    assert sorted(shards, key=int) == [str(number) for number in range(SHARDS)]
    assert len(json.dumps(run.document()["status"])) < OBJECT_BYTES
