"""From storage to network input: what is rejected costs the others nothing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from lobar.imaging import dicom, loader
from lobar.imaging.loader import Decoded, Rejected
from lobar.imaging.sampling import Sampling
from lobar.storage import objects
from tests.conftest import make_dicom, smooth_noise

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class Item:
    """An image of a folder."""

    patient_id: str
    object: objects.Object


def items(folder: Path) -> list[Item]:
    return [Item(objects.name(each.url), each) for each in objects.list_objects(str(folder))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two dozen good images in four encodings."""
    for i in range(24):
        syntax = (dicom.uid.JPEGBaseline8Bit, RLELossless, JPEGLSLossless, JPEG2000Lossless)[i % 4]
        (tmp_path / f"{i:02d}.dcm").write_bytes(make_dicom(smooth_noise(64, 64, i), syntax))
    return tmp_path


def read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    images = list(loader.decoded(items(folder), 64, Sampling.AREA))
    rejected = {image.item.patient_id: image.reason for image in images if isinstance(image, Rejected)}
    return {image.item.patient_id: image.levels for image in images if isinstance(image, Decoded)}, rejected


def test_images_come_in_order_from_every_encoding(folder: Path) -> None:
    images, rejected = read(folder)
    assert list(images) == [f"{i:02d}.dcm" for i in range(24)]
    assert not rejected
    for i in range(24):
        difference = np.abs(images[f"{i:02d}.dcm"].astype(int) - smooth_noise(64, 64, i))
        assert difference.max() <= (20 if i % 4 == 0 else 0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("j2k_abort", "its decoder died (SIGABRT)"),
        ("jpegls_segfault", "the JPEG has another size than the header's 64 x 48: 256 x 0"),
    ],
)
def test_a_file_that_kills_its_decoder_is_rejected_and_the_others_are_read(
    folder: Path, name: str, said: str
) -> None:
    """Both were found by mutating good files for a minute (tests/fuzz.py)."""
    for at in ("03", "17"):
        (folder / f"{at}-kills.dcm").write_bytes((FIXTURES / f"{name}.dcm").read_bytes())
    images, rejected = read(folder)
    assert len(images) == 24
    assert rejected == {f"{at}-kills.dcm": said for at in ("03", "17")}


def test_a_decoder_that_hangs_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any decoder takes longer than no time at all for a million pixels."""
    monkeypatch.setattr(loader, "DECODER_SECONDS", 0.0)
    for path in folder.glob("*.dcm"):
        if int(path.stem) % 4:
            path.write_bytes(make_dicom(smooth_noise(1024, 1024), JPEG2000Lossless))
    images, rejected = read(folder)
    assert len(images) == 6
    assert len(rejected) == 18
    assert set(rejected.values()) == {"its decoder takes more than 0 seconds"}


def test_a_file_beyond_the_limit_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "99.dcm").open("wb") as file:
        file.truncate(5 << 30)
    images, rejected = read(folder)
    assert len(images) == 24
    assert rejected == {"99.dcm": "the file is larger than 256 MiB"}
