"""Every job as it runs once on a small data set in an S3 store, undisturbed: what all others must equal."""

import hashlib
import json
import os
import re
import shutil
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

from jobs.__main__ import main
from lobar.evaluation.report import page
from lobar.evaluation.scoring import Result
from lobar.storage import objects as store
from lobar.training import quantization, trainer
from lobar.training.recipe import Recipe
from tests.conftest import make_dicom, smooth_noise
from tests.support.proxy import OF_BODIES, Kind

SMALL = ["--recipe", "demo", "--set", "image_size=32,channels=2,blocks=1,depth=2,batch_size=4,epochs=2"]
NAMING = ("files", "history", "index", "report", "scores", "slices", "submission", "table")
Objects = dict[str, bytes]


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
    for item, data in store.read_many(store.list_objects(place)):
        assert isinstance(data, bytes), data
        found[item.url.removeprefix(f"{place}/")] = data
    return found


def put(place: str, given: Objects) -> None:
    for name, data in given.items():
        store.publish(store.join(place, name), data)


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
            assert f"{Path(name).with_suffix('')}-{data['inputs']}.npz" in found
        else:
            assert data == wanted[name], name
        if name.endswith(".json"):
            named = json.dumps([json.loads(found[name]).get(key) for key in NAMING])
            assert {*re.findall("[0-9a-f]{64}", named)} <= digests, f"{name} names what is not there"


def last_line(said: str) -> str:
    """The line that tells a person what is wrong; nothing that was said may be a stack trace or a secret."""
    assert not re.search(f"Traceback|Signature=|{os.environ['AWS_SECRET_ACCESS_KEY']}", said)
    return said.splitlines()[-1]


@contextmanager
def simple_training() -> Iterator[None]:
    """Let train trace its network once and export a simple one of its weights, and evaluate draw nothing."""
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
        # all named: OpenVINO numbers what is not, through the whole process
        weights = np.concatenate([array.ravel() for array in model.get_weights()])
        levels = ops.parameter([-1, *model.input_shape[1:]], np.uint8, name="levels")
        scaled = ops.divide(
            ops.convert(levels, "f32", name="f"), ops.constant(np.float32(255), name="w"), name="s"
        )
        mean = ops.reduce_mean(ops.constant(weights, name="weights"), ops.constant([0], name="a"), name="m")
        simple = ov.Model([ops.result(ops.add(scaled, mean, name="p"), name="r")], [levels], "simple")
        ov.save_model(simple, path, compress_to_fp16=False)

    def to_int8(source: Path, levels: np.ndarray, target: Path) -> None:
        for suffix in (".xml", ".bin"):
            shutil.copy(source.with_suffix(suffix), target.with_suffix(suffix))

    def render(result: Result, *_: Any) -> bytes:
        return json.dumps(result.scores).encode()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compile_network", compile_once)
        patch.setattr(
            Model,
            "save",
            lambda model, path, **_: path.write_bytes(b"as Keras writes it, but without the time"),
        )
        patch.setattr(Model, "export", export)
        patch.setattr(quantization, "to_int8", to_int8)
        patch.setattr(page, "render", render)
        yield


def undisturbed(requests: list[str], place: str, *command: Any) -> Job:
    """Run a job whose requests are noted in `requests`."""
    given, first, started = objects(place), len(requests), time.monotonic()
    assert main([str(argument) for argument in command]) == 0
    seconds = time.monotonic() - started
    made = requests[first:]
    return Job([*command], place, given, objects(place), made, seconds)


def run_all(root: str, requests: list[str], labelled: int = 24, new: int = 10) -> dict[str, Job]:
    """Make a data set of so many images below `root` and run each job on it, noting its requests."""
    rows = ["patientId,x,y,width,height,Target"]
    for i in range(labelled):
        store.publish(f"{root}/train/p{i}.dcm", make_dicom(smooth_noise(128, 96, i)))
        rows.append(f"p{i},8,8,{20 + i % 5},16,1" if i % 2 else f"p{i},,,,,0")
    for i in range(new):
        store.publish(f"{root}/test/t{i}.dcm", make_dicom(smooth_noise(64, 64, i)))
    store.publish(f"{root}/labels.csv", ("\n".join(rows) + "\n").encode())
    dataset, model, prediction = f"{root}/dataset", f"{root}/model", f"{root}/prediction"
    labels = ["--labels", f"{root}/labels.csv", "--images", f"{root}/train", "--valid-fraction", 0.3]
    images = ["--images", f"{root}/test", "--model", model, "--shards", 2]
    found = {
        "label-index": undisturbed(requests, dataset, "label-index", *labels, "--out", dataset),
        "train": undisturbed(requests, model, "train", "--dataset", dataset, "--out", model, *SMALL),
        "evaluate": undisturbed(requests, model, "evaluate", "--dataset", dataset, "--model", model),
        "plan": undisturbed(requests, prediction, "plan", *images, "--out", prediction),
        "predict": undisturbed(requests, prediction, "predict", "--prediction", prediction, "--shard", 0),
    }
    undisturbed(requests, prediction, "predict", "--prediction", prediction, "--shard", 1)
    found["merge-submission"] = undisturbed(
        requests, prediction, "merge-submission", "--prediction", prediction
    )
    return found
