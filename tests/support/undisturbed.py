"""Every job, run once without a fault on a small dataset. The results of all other runs must equal these."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from pydicom.uid import SecondaryCaptureImageStorage

from jobs.__main__ import main
from lobar.evaluation.report import page
from lobar.evaluation.scoring import Result
from lobar.storage import objects as store
from lobar.training import quantization, trainer
from lobar.training.recipe import Recipe
from tests.conftest import make_dicom, smooth_noise
from tests.support.proxy import BODY_FAULTS, Kind

SMALL = ["--recipe", "notebook", "--set", "image_size=32,channels=2,blocks=1,depth=2,batch_size=4,epochs=2"]
NAMING = ("card", "files", "history", "index", "report", "scores", "slices", "submission", "table")
Objects = dict[str, bytes]


@dataclass(frozen=True)
class Job:
    """A job that ran without a fault: command, objects in its folder before and after, requests, seconds."""

    command: list[Any]
    folder: str
    before: Objects
    after: Objects
    requests: list[str]
    seconds: float

    def prepare(self, folder: str) -> list[Any]:
        """The command for another folder; writes the objects there that the job needs."""
        write_objects(folder, self.before)
        return [folder if argument == self.folder else argument for argument in self.command]

    def request(self, moment: str, kind: Kind) -> int:
        """The number of the first request of a moment, among those that can have such a fault."""
        affected = [line for line in self.requests if kind not in BODY_FAULTS or line.startswith("GET")]
        writes = [i for i, line in enumerate(affected, start=1) if line.startswith(("PUT", "DELETE"))]
        match moment:
            case "reading":
                return len(affected) // 3 + 1
            case "writing":
                return writes[len(writes) // 2 - 1]
        return len(affected)


def read_objects(folder: str) -> Objects:
    objects = {}
    for item, data in store.read_many(store.list_objects(folder)):
        assert isinstance(data, bytes), data
        objects[item.url.removeprefix(f"{folder}/")] = data
    return objects


def write_objects(folder: str, objects: Objects) -> None:
    for name, data in objects.items():
        store.publish(store.join(folder, name), data)


def without_time(objects: Objects) -> dict[str, Any]:
    """Objects without the time of creation, which only records have: the rest can be compared."""
    compared: dict[str, Any] = {**objects}
    for name in objects:
        if name.endswith(".json"):
            compared[name] = json.loads(objects[name])
            compared[name].pop("created", None)
    return compared


def check_complete(objects: Objects, expected: Objects) -> None:
    """Every object is a checkpoint or equals one of `expected`, and all objects that a record names exist."""
    compared = without_time(expected)
    digests = {hashlib.sha256(data).hexdigest() for data in objects.values()}
    for name, data in without_time(objects).items():
        if name.endswith(".npz"):
            assert hashlib.sha256(data).hexdigest() in name
        elif name.startswith("checkpoints/"):
            assert f"{Path(name).with_suffix('')}-{data['variables']}.npz" in objects
        else:
            assert data == compared[name], name
        if name.endswith(".json"):
            named = json.dumps([json.loads(objects[name]).get(key) for key in NAMING])
            assert {*re.findall("[0-9a-f]{64}", named)} <= digests, (
                f"{name} names an object that does not exist"
            )


def last_line(stderr: str) -> str:
    """The last line, which is the error message. `stderr` must contain no stack trace and no secret."""
    assert not re.search(f"Traceback|Signature=|{os.environ['AWS_SECRET_ACCESS_KEY']}", stderr)
    return stderr.splitlines()[-1]


@contextmanager
def simple_training() -> Iterator[None]:
    """Make train trace its network only once and export a simple one, and evaluate draw no report."""
    from keras import Model

    compile_network = trainer.compile_network
    compiled: list[tuple[Model, list[np.ndarray]]] = []

    def compile_once(recipe: Recipe, seed: int) -> Model:
        if not compiled:
            model = compile_network(recipe, seed)
            compiled.append((model, model.get_weights()))
        model, weights = compiled[0]
        model.set_weights(weights)
        for variable in model.optimizer.variables:
            variable.assign(variable.numpy() * 0)
        return model

    def export(model: Model, path: str, **_: Any) -> None:
        # all have names: OpenVINO numbers nodes without one, and counts on through the whole process
        weights = np.concatenate([array.ravel() for array in model.get_weights()])
        levels = ops.parameter([-1, *model.input_shape[1:]], np.uint8, name="levels")
        scaled = ops.divide(
            ops.convert(levels, "f32", name="f"), ops.constant(np.float32(255), name="w"), name="s"
        )
        mean = ops.reduce_mean(ops.constant(weights, name="weights"), ops.constant([0], name="a"), name="m")
        simple = ov.Model([ops.result(ops.add(scaled, mean, name="p"), name="r")], [levels], "simple")
        ov.save_model(simple, path, compress_to_fp16=False)

    def to_int8(network: ov.Model, levels: np.ndarray) -> ov.Model:
        return network

    def render(result: Result, *_: Any) -> bytes:
        return json.dumps(result.scores).encode()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compile_network", compile_once)
        patch.setattr(
            Model,
            "save",
            lambda model, path, **_: path.write_bytes(b"like the file of Keras, but without the time"),
        )
        patch.setattr(Model, "export", export)
        patch.setattr(quantization, "to_int8", to_int8)
        patch.setattr(page, "render", render)
        yield


def run_undisturbed(requests: list[str], folder: str, *command: Any) -> Job:
    """Run a job that writes to `folder`, and whose requests are appended to `requests`."""
    before, first, started = read_objects(folder), len(requests), time.monotonic()
    assert main([str(argument) for argument in command]) == 0
    seconds = time.monotonic() - started
    sent = requests[first:]  # without those of read_objects
    return Job([*command], folder, before, read_objects(folder), sent, seconds)


def run_all(root: str, requests: list[str], labelled: int = 24, new: int = 10) -> dict[str, Job]:
    """Make a dataset of that many images under `root`, and run each job on it."""
    rows = ["patientId,x,y,width,height,Target"]
    for i in range(labelled):
        store.publish(f"{root}/train/p{i}.dcm", make_dicom(smooth_noise(128, 96, i)))
        rows.append(f"p{i},8,8,{20 + i % 5},16,1" if i % 2 else f"p{i},,,,,0")
    for i in range(new):
        uids = {"StudyInstanceUID": f"1.2.{i}.1", "SeriesInstanceUID": f"1.2.{i}.2"}
        image = make_dicom(smooth_noise(64, 64, i), SOPClassUID=SecondaryCaptureImageStorage, **uids)
        store.publish(f"{root}/test/t{i}.dcm", image)
    store.publish(f"{root}/labels.csv", ("\n".join(rows) + "\n").encode())
    dataset, model, prediction = f"{root}/dataset", f"{root}/model", f"{root}/prediction"
    labels = ["--labels", f"{root}/labels.csv", "--images", f"{root}/train", "--valid-fraction", 0.3]
    images = ["--images", f"{root}/test", "--model", model, "--shards", 2]
    jobs = {
        "label-index": run_undisturbed(requests, dataset, "label-index", *labels, "--out", dataset),
        "train": run_undisturbed(requests, model, "train", "--dataset", dataset, "--out", model, *SMALL),
        "evaluate": run_undisturbed(requests, model, "evaluate", "--dataset", dataset, "--model", model),
        "plan": run_undisturbed(requests, prediction, "plan", *images, "--out", prediction),
        "predict": run_undisturbed(requests, prediction, "predict", "--prediction", prediction, "--shard", 0),
    }
    run_undisturbed(requests, prediction, "predict", "--prediction", prediction, "--shard", 1)
    jobs["merge-submission"] = run_undisturbed(
        requests, prediction, "merge-submission", "--prediction", prediction
    )
    # the reports are compared; its record is in the prediction, in a folder for each destination
    reports = f"{root}/reports"
    jobs["export"] = run_undisturbed(
        requests, reports, "export", "--prediction", prediction, "--to", reports, "--shard", 0
    )
    return jobs
