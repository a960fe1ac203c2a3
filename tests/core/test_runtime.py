"""The settings of the whole process, each tested in its own process."""

import os
import pickle
import subprocess
import sys

import pytest

from tests.conftest import make_dicom, smooth_noise
from tests.support.prediction import INPUTS
from tests.support.radiographs import radiograph

READ_HEADER = """
import logging, sys
{prepare}
logging.basicConfig()
import pydicom
from lobar.imaging.dicom import header
header(sys.stdin.buffer.read())
"""
MAKE_REPORT = """
import logging, pickle, sys
{prepare}
logging.basicConfig(level=logging.INFO)
from lobar.inference.writers import source
from lobar.inference.writers.structured_report import Writer
inputs, image = pickle.load(sys.stdin.buffer)
Writer(inputs).report("x", source.read(image), [])
"""
PREPARE = "from lobar.core.runtime import prepare; prepare()"


def run(program: str, data: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))
    }
    return subprocess.run(
        [sys.executable, "-c", program],
        input=data,
        capture_output=True,
        check=False,
        env=environment | variables,
    )


@pytest.mark.parametrize(("prepare", "shown"), [("", True), (PREPARE, False)])
def test_header_values_do_not_reach_the_log(prepare: str, shown: bool) -> None:
    """pydicom quotes them, in warnings and in its log, even for elements that are valid for us."""
    data = make_dicom(smooth_noise(64, 64), BodyPartExamined="chest of doe^john", SpecificCharacterSet="DOE")
    done = run(READ_HEADER.format(prepare=prepare), data)
    assert done.returncode == 0
    assert (b"doe" in done.stderr.lower()) == shown
    assert bool(done.stderr) == shown


@pytest.mark.parametrize(("prepare", "shown"), [("", True), (PREPARE, False)])
def test_values_in_a_report_do_not_reach_the_log(prepare: str, shown: bool) -> None:
    """highdicom quotes a name without a caret in a warning, and logs UIDs."""
    done = run(MAKE_REPORT.format(prepare=prepare), pickle.dumps((INPUTS, radiograph(PatientName="DOE"))))
    assert done.returncode == 0, done.stderr
    assert (b"DOE" in done.stderr) == shown
    assert bool(done.stderr) == shown


def test_telemetry_is_off() -> None:
    done = run(f"{PREPARE}\nimport openvino_telemetry")
    assert done.returncode == 1
    assert b"import of openvino_telemetry halted" in done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LOBAR_CPUS": "3"}, "tensorflow 3 1"),
        ({"LOBAR_CPUS": "3", "KERAS_BACKEND": "jax", "TF_NUM_INTEROP_THREADS": "2"}, "jax 3 2"),
        ({"LOBAR_CPUS": "three"}, "tensorflow None None"),
    ],
)
def test_variables_are_defaults(variables: dict[str, str], expected: str) -> None:
    names = ("KERAS_BACKEND", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    done = run(f"{PREPARE}\nimport os\nprint(*map(os.environ.get, {names}))", **variables)
    assert done.stdout.decode().strip() == expected


def test_it_imports_no_heavy_library() -> None:
    done = run(
        f"{PREPARE}\nimport sys\nprint({{'numpy', 'pydicom', 'openvino', 'keras'}} & {{*sys.modules}})"
    )
    assert done.stdout == b"set()\n"
