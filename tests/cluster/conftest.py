"""The cluster that `make test-cluster` starts and names in KUBECONFIG, with data in its bucket."""

import base64
import json
import os
from collections.abc import Iterator

import pytest
import yaml

from lobar.storage import objects
from tests.cluster.common import CPUS, GIVEN, PARAMETERS, ROOT, SMALL_RESOURCES, SUBMIT, TRAINING, templates
from tests.conftest import write_data
from tests.support.argo import REPOSITORY, Run, argo, kubectl, options, runs, until
from tests.support.stores import use_server


@pytest.fixture(scope="session", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cluster of KUBECONFIG, with data in its bucket, which this process can also read."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("no cluster: make test-cluster starts one")
    _reduce_resources()
    secret = json.loads(kubectl("get", "secret", "lobar-store", "-o", "json"))["data"]
    environment = {name: base64.b64decode(value).decode() for name, value in secret.items()}
    address = kubectl("get", "service", "minio", "-o", "jsonpath={.spec.clusterIP}")
    folder = tmp_path_factory.mktemp("here")
    write_data(folder)
    with use_server(environment | {"AWS_ENDPOINT_URL": f"http://{address}:9000"}):
        for path in folder.rglob("*.*"):
            objects.publish_file(f"{ROOT}/{path.relative_to(folder)}", path)
        yield


def _reduce_resources() -> None:
    """This machine has fewer CPUs than the templates request, and than train may use."""
    smaller = [
        {"op": "replace", "path": f"/spec/templates/{i}/container/resources/{path}", "value": value}
        for i, template in enumerate(templates())
        if "container" in template
        for path, value in (("requests", SMALL_RESOURCES), ("limits/cpu", CPUS))
    ]
    kubectl("patch", "workflowtemplate", "lobar", "--type=json", f"--patch={json.dumps(smaller)}")


@pytest.fixture(scope="session")
def full(cluster: None) -> Run:
    """A run of README's last command, with the parameters of a small training."""
    small = {name: value for name, value in PARAMETERS.items() if name not in GIVEN}
    prices = {"price-cpu-hour": "50", "price-gpu-hour": "500"}  # so high that a minute is not rounded to 0
    run = Run(argo(*SUBMIT[1:], *options(small | prices), "--output=name").strip())
    run.expect_success()
    return run


@pytest.fixture(scope="session")
def cron(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the first run of the CronWorkflow, which is suspended after it has started."""
    before = {run.name for run in runs()}
    workflow = yaml.safe_load((REPOSITORY / "workflows/retrain.yaml").read_text())
    workflow["spec"]["schedules"] = ["* * * * *"]  # not --schedule, which Argo 3.7 adds to those of the file
    file = tmp_path_factory.mktemp("cron") / "retrain.yaml"
    file.write_text(yaml.safe_dump(workflow))
    argo("cron", "create", str(file), *options(TRAINING))
    name = until("the cron", lambda: {run.name for run in runs()} - before, 130).pop()
    argo("cron", "suspend", "lobar-retrain")
    return str(name)
