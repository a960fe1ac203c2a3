"""A job on every kind of store: the same result, and not a word from the drivers."""

import re
from pathlib import Path

import pytest

from dev.servers import Server
from lobar.storage import objects
from tests.conftest import Run, make_dicom, smooth_noise
from tests.support.stores import use_server


@pytest.mark.parametrize("kind", ["s3", "minio", "gcs", "azure"])
def test_label_index_does_the_same_as_in_a_folder(
    kind: str, tmp_path: Path, run: Run, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(f"{kind}_server")
    labels = "patientId,x,y,width,height,Target\n" + "".join(f"p{i},,,,,0\n" for i in range(12))
    images = {f"p{i}": make_dicom(smooth_noise(64, 64, i)) for i in range(12)}
    outcomes = []
    with use_server(server.environment):
        for root in (str(tmp_path), f"{server.root}/label-index"):
            objects.publish(f"{root}/labels.csv", labels.encode())
            for name, data in images.items():
                objects.publish(f"{root}/images/{name}.dcm", data)
            command = ["label-index", "--labels", f"{root}/labels.csv", "--images", f"{root}/images"]
            done = run(*command, "--out", f"{root}/dataset", "--valid-fraction", 0.3)
            missing = run(*command[:4], f"{root}/nothing", "--out", f"{root}/other")
            assert (done[0], missing[0]) == (0, 2)
            outcomes.append(re.sub(rf"(file://)?{root}|\d+\.\d s", "", f"{done} {missing}"))
    assert outcomes[0] == outcomes[1]
