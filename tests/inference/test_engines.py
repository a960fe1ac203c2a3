"""Precisions: which one is chosen, on which CPUs, and what it finds."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorflow.python.framework import config

from lobar.core.boxes import iou
from lobar.core.errors import InputError
from lobar.inference import engines
from lobar.inference.engines import OpenVino, TensorFlow
from lobar.inference.release import NOTEBOOK, EvaluationInputs, Offer, Release
from lobar.inference.rows import parse_prediction_string
from lobar.storage import objects, records
from lobar.storage.layout import Model
from lobar.training import recipe
from lobar.training.record import ModelFiles
from tests.conftest import Run, World

HERE, ELSEWHERE = ["avx2", "avx512f"], ["avx2"]
FILES = ModelFiles("", "", "", "", "")
RELEASE = Release(
    inputs=EvaluationInputs("", "", "", ""),
    files=FILES,
    recipe=recipe.load("demo", "precision=mixed_bfloat16"),
    precisions={
        "float32": Offer(NOTEBOOK, NOTEBOOK, []),
        "bfloat16": Offer(NOTEBOOK, NOTEBOOK, HERE),
        "int8": Offer(NOTEBOOK, NOTEBOOK, ELSEWHERE),
    },
)


@pytest.fixture
def this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "cpu_features", lambda: HERE)


@pytest.mark.parametrize(
    ("asked", "device", "resolved"),
    [
        ("auto", "cpu", "bfloat16"),  # int8 is faster, but was measured on another CPU
        ("int8", "cpu", "int8"),
        ("float32", "cpu", "float32"),
        ("auto", "gpu", "mixed_bfloat16"),
        ("mixed_bfloat16", "gpu", "mixed_bfloat16"),
    ],
)
@pytest.mark.usefixtures("this_cpu")
def test_the_release_decides_the_precision(asked: str, device: str, resolved: str) -> None:
    assert engines.resolve_precision(asked, device, RELEASE) == resolved


@pytest.mark.parametrize(
    ("asked", "device", "message"),
    [
        ("fp4", "cpu", "precision fp4: not offered by this model; choose auto or float32, bfloat16, int8"),
        ("int8", "gpu", "precision int8: on a GPU this model computes in mixed_bfloat16; choose auto"),
    ],
)
def test_a_precision_that_is_not_offered_is_rejected(asked: str, device: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        engines.resolve_precision(asked, device, RELEASE)


def test_a_gpu_computes_what_was_not_evaluated_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engines.resolve_precision("auto", "cpu", RELEASE)
    assert not caplog.messages
    engines.resolve_precision("auto", "gpu", RELEASE)
    (message,) = caplog.messages
    assert message.startswith("on a GPU this model computes in mixed_bfloat16: evaluate has not judged this")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the system has no /proc/cpuinfo")
def test_the_features_of_this_cpu_are_those_that_linux_names() -> None:
    words = Path("/proc/cpuinfo").read_text().split()
    assert engines.cpu_features() == [feature for feature in engines.FEATURES if feature in words]


@pytest.fixture
def offering_int8(world: World, tmp_path: Path) -> Path:
    """The world's model, whose release offers int8 to this CPU whatever its evaluation said."""
    model = tmp_path / "model"
    shutil.copytree(world.place("models"), model)
    release = json.loads((model / "release.json").read_text())
    release["precisions"]["int8"] = release["precisions"]["float32"] | {
        "cpu_features": engines.cpu_features()
    }
    (model / "release.json").write_text(json.dumps(release))
    return model


def plan(run: Run, world: World, model: Path, out: Path, precision: str) -> None:
    images = f"--images={world.root}/data/test_images"
    options = ["--shards=1", f"--out={out}", f"--precision={precision}", "--operating-point=notebook"]
    assert run("plan", images, f"--model={model}", *options)[0] == 0


def test_tensorflow_finds_what_openvino_finds(world: World, run: Run, tmp_path: Path) -> None:
    """The engine of the GPU pool, on the CPU here."""
    rows = {}
    for device in ("cpu", "gpu"):
        out = f"--out={tmp_path}/{device}"
        options = ["plan", f"--images={world.root}/data/test_images", f"--model={world.place('models')}", out]
        assert run(*options, "--shards=1", f"--device={device}", "--precision=float32")[0] == 0
        prediction = f"--prediction={tmp_path}/{device}"
        assert run("predict", prediction, "--shard=0", "--max-rejected=0.2")[0] == 0
        assert run("merge-submission", prediction, f"--figures={tmp_path}/figures")[0] == 0
        rows[device] = (tmp_path / device / "submission.csv").read_text().splitlines()[1:]
        _, out, _ = run("explain", prediction, "--patient-id=t1", "--replay")
        assert ("; tuned for float32 on a CPU" in out) == (device == "gpu")
        assert out.endswith(": the same row\n")
    assert [row.split(",")[0] for row in rows["cpu"]] == [row.split(",")[0] for row in rows["gpu"]]
    numbers = [[float(n) for row in rows[device] for n in row.split(",")[1].split()] for device in rows]
    assert len(numbers[0]) > 0
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)
    figures = {path.name: path.read_text() for path in (tmp_path / "figures").iterdir()}
    assert (figures["rows"], figures["rejected"]) == ("21", "1")


def test_int8_finds_nearly_what_float32_finds(
    world: World, run: Run, offering_int8: Path, tmp_path: Path
) -> None:
    found = {}
    for precision in ("float32", "auto"):
        place = tmp_path / precision
        plan(run, world, offering_int8, place, precision)
        assert run("predict", f"--prediction={place}", "--shard=0", "--max-rejected=0.2")[0] == 0
        assert run("merge-submission", f"--prediction={place}")[0] == 0
        rows = (place / "submission.csv").read_text().splitlines()[1:]
        found[precision] = [parse_prediction_string(row.split(",")[1]) for row in rows]
    assert json.loads((tmp_path / "auto/plan.json").read_text())["inputs"]["precision"] == "int8"
    assert found["auto"] != found["float32"]
    assert [len(boxes) for boxes in found["auto"]] == [len(boxes) for boxes in found["float32"]]
    pairs = [pair for rows in zip(*found.values(), strict=True) for pair in zip(*rows, strict=True)]
    assert len(pairs) > 5
    assert np.median([iou(ours, exact) for ours, exact in pairs]) > 0.9


def test_a_cpu_unlike_that_of_the_plan_ends_with_2(
    world: World, run: Run, offering_int8: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(run, world, offering_int8, tmp_path / "p", "int8")
    monkeypatch.setattr(engines, "cpu_features", lambda: ["avx999"])
    status, _, error = run("predict", f"--prediction={tmp_path}/p", "--shard=0")
    assert status == 2
    assert "this one has avx999; use such nodes, or plan again with precision float32" in error
    assert not (tmp_path / "p/shards").exists()


def test_no_library_sends_telemetry() -> None:
    """OpenVINO's converter and NNCF would, to a web analytics service."""
    job = "from jobs.__main__ import main; main(['predict', '--help'])"
    script = f"{job}\nimport sys\nassert sys.modules['openvino_telemetry'] is None\nimport openvino_telemetry"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "import of openvino_telemetry halted" in done.stderr


def test_the_first_inference_runs_alone() -> None:
    """Two at once have deadlocked a pod in OpenVINO's bindings."""
    seen: list[tuple[int, int]] = []

    class Watched(OpenVino):
        def __init__(self) -> None:
            self.running = 0

        def _infer(self, batch: tuple[int, np.ndarray]) -> tuple[int, np.ndarray]:
            self.running += 1
            time.sleep(0.02)
            seen.append((batch[0], self.running))
            self.running -= 1
            return batch[0], batch[1]

    images = np.zeros((1, 4, 4))
    assert [key for key, _ in Watched().maps((key, images) for key in range(6))] == [*range(6)]
    assert seen[0] == (0, 1)
    assert max(running for _, running in seen) == 2


def test_code_in_a_keras_file_is_not_run(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "lambda.keras")
    model = Model(objects.absolute(str(tmp_path)))
    sha256 = records.put(model.keras, (tmp_path / "lambda.keras").read_bytes())
    message = rf"model-{sha256}\.keras: not a network that may be loaded: .*[Ll]ambda"
    with pytest.raises(InputError, match=message):
        TensorFlow(model, replace(FILES, keras=sha256), "float32")


def test_the_gpu_engine_uses_deterministic_operations(world: World) -> None:
    config.disable_op_determinism()
    model = Model(objects.absolute(str(world.place("models"))))
    TensorFlow(model, records.read(model.release, Release).files, "float32")
    assert config.is_op_determinism_enabled()


@pytest.mark.parametrize("engine", [OpenVino, TensorFlow])
def test_a_batch_of_rejected_images_alone_has_no_maps(
    world: World, engine: type[OpenVino] | type[TensorFlow]
) -> None:
    model = Model(objects.absolute(str(world.place("models"))))
    opened = engine(model, records.read(model.release, Release).files, "float32")
    images = [np.zeros((n, 64, 64), np.uint8) for n in (0, 3, 0)]
    found = list(opened.maps(enumerate(images)))
    assert [(key, maps.shape) for key, maps in found] == [
        (0, (0, 64, 64)),
        (1, (3, 64, 64)),
        (2, (0, 64, 64)),
    ]
