"""Fixtures for several test files: files on disk, small DICOMs, a run of the workflow, and servers."""

import fcntl
import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from dev import archive, servers, stores
from jobs.__main__ import main
from lobar.core import runtime
from lobar.workflow import runner, steps
from tests.support.stubs import Bench

runtime.prepare()  # as every job does
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def remove_log_handlers() -> Iterator[None]:
    """A job logs to the stderr of its test, which is closed when the test ends."""
    yield
    root = logging.getLogger()
    for handler in [item for item in root.handlers if type(item) is logging.StreamHandler]:
        root.removeHandler(handler)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a job as its container would, and returns (status, stdout, stderr)."""

    def run_job(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return status, out, err.strip()

    return run_job


@pytest.fixture
def real_data() -> Path:
    """The folder of real DICOMs and label tables."""
    folder = os.environ.get("LOBAR_REAL_DATA")
    if not folder:
        pytest.skip("no real DICOMs: LOBAR_REAL_DATA names no folder")
    return Path(folder)


def make_dicom(pixels: np.ndarray, syntax: UID = JPEGBaseline8Bit, **elements: object) -> bytes:
    """A DICOM file of pixels of 8 or 16 bits, in any transfer syntax that OpenCV or pydicom can encode.

    `elements` are set or, if None, removed.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(pixels.dtype.kind == "i")
    dataset.ViewPosition = "PA"
    if syntax == JPEGBaseline8Bit:
        dataset.PixelData = encapsulate([cv2.imencode(".jpg", pixels)[1].tobytes()])
        dataset["PixelData"].VR = "OB"
    else:
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    if syntax.is_compressed and syntax != JPEGBaseline8Bit:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        elif name == "TransferSyntaxUID":
            dataset.file_meta.TransferSyntaxUID = value
        else:
            setattr(dataset, name, value)
    body = io.BytesIO()
    dataset.save_as(body, enforce_file_format=True)
    return body.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Writes a file under tmp_path and returns its path."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(runner, "BACKOFF_SECONDS", (0.01,) * steps.RETRY_LIMIT)
    return Bench(tmp_path)


def smooth_noise(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """uint8 pixels that JPEG changes little: blobs a few dozen pixels wide."""
    coarse = np.random.default_rng(seed).integers(0, 256, (rows // 32 + 2, columns // 32 + 2))
    return cv2.resize(coarse.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_CUBIC)


@dataclass(frozen=True)
class World:
    """A folder with the results of the whole workflow on small images, which have bright squares to find."""

    root: Path
    command: list[str]
    output: str

    def place(self, kind: str) -> Path:
        """The run's folder of datasets, models or predictions."""
        (folder,) = (self.root / kind).iterdir()
        return folder


SQUARE = 24
RECIPE_CHANGES = (
    "sampling=area,image_size=64,channels=4,blocks=1,depth=2,epochs=12,schedule_epochs=0,batch_size=8,"
    "learning_rate=0.01,positive_fraction=0.5"
)
WORKFLOW = [
    "recipe=notebook",
    f"recipe-changes={RECIPE_CHANGES}",
    "shards=3",
    "valid-fraction=0.3",
    "max-rejected-new=0.2",
]


def square_image(seed: int, positive: bool) -> tuple[np.ndarray, tuple[int, int]]:
    """Noise of 128 x 96 and, if positive, a bright square at (x, y)."""
    rng = np.random.default_rng(seed)
    pixels = smooth_noise(128, 96, seed) // 4
    x, y = int(rng.integers(0, 96 - SQUARE)), int(rng.integers(0, 128 - SQUARE))
    if positive:
        pixels[y : y + SQUARE, x : x + SQUARE] += 150
    return pixels, (x, y)


def write_data(root: Path) -> None:
    """80 labelled images and 21 to predict, one of them truncated, under `root`/data."""
    for folder in ("train_images", "test_images"):
        (root / "data" / folder).mkdir(parents=True)
    rows, groups = ["patientId,x,y,width,height,Target"], ["patientId,group"]
    for i in range(80):
        pixels, (x, y) = square_image(i, positive=i % 2 == 1)
        (root / f"data/train_images/p{i}.dcm").write_bytes(make_dicom(pixels))
        rows.append(f"p{i},{x}.0,{y}.0,{SQUARE}.0,{SQUARE}.0,1" if i % 2 else f"p{i},,,,,0")
        groups.append(f"p{i},g{i // 2}")
    for i in range(20):
        pixels, _ = square_image(1000 + i, positive=i % 2 == 1)
        (root / f"data/test_images/t{i}.dcm").write_bytes(make_dicom(pixels))
    (root / "data/test_images/broken.dcm").write_bytes(make_dicom(pixels)[:-400])
    (root / "data/train_labels.csv").write_text("\n".join(rows) + "\n")
    (root / "data/train_groups.csv").write_text("\n".join(groups) + "\n")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Shared by all workers of pytest-xdist: the first creates it, the others wait. Tests only read it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root, output = shared / "world", shared / "world.stdout"
    command = [sys.executable, "-m", "lobar.workflow", "workflows/full.yaml", "-p", f"root={root}"]
    command += ["-p", f"artifacts={root}"]
    for parameter in WORKFLOW:
        command += ["-p", parameter]
    with (shared / "world.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            shutil.rmtree(root, ignore_errors=True)  # of a worker that failed
            write_data(root)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            output.write_text(done.stdout)
    return World(root, command, output.read_text())


def start_store(kind: stores.Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A store with the bucket `lobar`; skips if its program is missing."""
    if stores.find(kind) is None:
        pytest.skip(f"the program of the store {kind} is missing: make {kind} installs it")
    with servers.serve(kind, tmp_path_factory.mktemp(kind)) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """SeaweedFS."""
    yield from start_store("s3", tmp_path_factory)


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """MinIO."""
    yield from start_store("minio", tmp_path_factory)


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """fake-gcs-server, an emulator of Google Cloud Storage."""
    yield from start_store("gcs", tmp_path_factory)


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """Azurite, Microsoft's emulator of Azure Blob Storage."""
    yield from start_store("azure", tmp_path_factory)


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[archive.Archive]:
    """Orthanc with its DICOMweb plugin; skips if it is not installed."""
    if archive.find() is None:
        pytest.skip(archive.MISSING)
    with archive.serve(tmp_path_factory.mktemp("orthanc")) as server:
        yield server
