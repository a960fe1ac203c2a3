"""Bytes of a DICOM file to grey levels at a wanted size, or a refusal that says why.

Nothing of a header leaves this module but numbers of its geometry, and a view and a kind of image that the
standard names: any other text might be a patient's.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from pydicom import Dataset, config, dcmread
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEGBaseline8Bit

from lobar.errors import LobarError

# pydicom's warnings quote header values, which must not reach a log
config.settings.reading_validation_mode = config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\.")

HEADER_BYTES = 8192
LARGEST_SIDE = 16384
REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
VIEWS = ("AP", "PA", "LL", "RL")
COLOURS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
GREY_TRANSFORMS = ("RescaleSlope", "WindowCenter", "ModalityLUTSequence", "VOILUTSequence")


class Refused(ValueError):
    """An image that cannot be used; the text says what was found, and holds nothing about the patient."""


class Sampling(StrEnum):
    """How an image is brought to the network's size.

    area: the mean over the area that each pixel covers, uint8 grey levels 0..255.
    notebook: bilinear without anti-aliasing, as the notebook did; on 1024 x 1024 images at 256 that is the
    mean of the central 2 x 2 of each 4 x 4 block. uint16 quarter grey levels 0..1020, so that it is exact.
    """

    AREA = "area"
    NOTEBOOK = "notebook"

    @property
    def dtype(self) -> str:
        return "uint8" if self is Sampling.AREA else "uint16"

    @property
    def white(self) -> int:
        """The largest level, which the network takes as 1."""
        return 255 if self is Sampling.AREA else 1020


@dataclass(frozen=True, slots=True)
class Header:
    """What the index keeps of a header: the image's size in pixels and its view (one of VIEWS or empty)."""

    rows: int
    columns: int
    view: str


def header(data: bytes) -> Header:
    """Read the header from a file's beginning (HEADER_BYTES are enough for most) or from all of it.

    Raises Refused where these bytes cannot become an image; all of them may, if they are only a beginning.
    """
    with _refusing():
        return _checked(dcmread(io.BytesIO(data), stop_before_pixels=True))


def network_input(data: bytes, size: int, sampling: Sampling) -> tuple[np.ndarray, Header]:
    """Decode a DICOM file to (size, size) in the sampling's integer levels, black 0, with its header.

    Raises Refused for anything but one complete monochrome frame.
    """
    with _refusing():
        dataset = dcmread(io.BytesIO(data))
        found = _checked(dataset)
        reduction = 1
        if sampling is Sampling.AREA:
            reduction = max(f for f in REDUCED if f == 1 or min(found.rows, found.columns) >= f * size)
        pixels = _grey(dataset, found, reduction)
    if sampling is Sampling.NOTEBOOK:
        return notebook_sampling(pixels, size), found
    if pixels.shape != (size, size):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    return pixels, found


def notebook_sampling(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bilinear samples of uint8 `pixels` at (size, size) without anti-aliasing, in quarter levels, uint16.

    Equals skimage's resize(mode="reflect", anti_aliasing=False) times 1020; exactly so where each side is
    an even multiple of `size`.
    """
    step, rest = divmod(pixels.shape[0], size)
    if pixels.shape[0] == pixels.shape[1] and rest == 0 and step % 2 == 0:
        first = step // 2 - 1
        rows = pixels[first::step].astype(np.uint16) + pixels[first + 1 :: step]
        return rows[:, first::step] + rows[:, first + 1 :: step]
    exact = cv2.resize(pixels.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.rint(exact * 4).astype(np.uint16)


@contextmanager
def _refusing(what: str = "damaged DICOM") -> Iterator[None]:
    """Turn whatever a damaged file makes parsers and decoders raise into a refusal.

    Neither want of memory nor a told stop is the file's fault; they pass.
    """
    try:
        yield
    except (Refused, MemoryError, LobarError):
        raise
    except InvalidDicomError:
        raise Refused("not a DICOM file: the mark DICM is not where it belongs") from None
    except Exception as error:  # pydicom and the decoders share no base class, and parse when asked
        raise Refused(f"{what}: {type(error).__name__}") from None


def _checked(dataset: Dataset) -> Header:
    if "Rows" not in dataset or "Columns" not in dataset:
        # pydicom drops everything where the file ends inside its pixel data
        raise Refused("truncated or damaged: it ends before the image does")
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise Refused(f"{dataset.SamplesPerPixel} samples per pixel; only monochrome images are read")
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        named = photometric if photometric in COLOURS else "missing or unknown"
        raise Refused(f"PhotometricInterpretation is {named}; only MONOCHROME1 and 2 are read")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise Refused(f"{dataset.NumberOfFrames} frames; only single images are read")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if not (0 < rows <= LARGEST_SIDE and 0 < columns <= LARGEST_SIDE):
        raise Refused(f"{rows} rows x {columns} columns; from 1 to {LARGEST_SIDE} are read")
    view = str(dataset.get("ViewPosition") or "")
    return Header(rows, columns, view if view in VIEWS else "")


def _grey(dataset: Dataset, found: Header, reduction: int) -> np.ndarray:
    """Grey levels 0..255 (uint8, black 0), from a JPEG frame at 1/reduction of its size."""
    if not dataset.get("PixelData"):
        raise Refused("no pixel data")
    syntax = dataset.file_meta.get("TransferSyntaxUID", "missing")
    plain = dataset.get("BitsAllocated") == 8 and not any(name in dataset for name in GREY_TRANSFORMS)
    if syntax == JPEGBaseline8Bit and plain:
        levels = _jpeg(dataset, found, reduction)
    else:
        levels = _to_8_bits(dataset, found, reduction, plain)
    return 255 - levels if dataset.PhotometricInterpretation == "MONOCHROME1" else levels


def _jpeg(dataset: Dataset, found: Header, reduction: int) -> np.ndarray:
    try:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    except (ValueError, StopIteration):
        raise Refused("damaged pixel data: no encapsulated frame") from None
    # libjpeg fills a truncated image with grey and says nothing
    if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise Refused("truncated JPEG: its end marker is missing")
    # a DICOM has no EXIF, and boxes are drawn on the image as it is stored
    flags = REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    levels = cv2.imdecode(np.frombuffer(frame, np.uint8), flags)
    if levels is None:
        raise Refused("damaged JPEG: it cannot be decoded")
    expected = (-(-found.rows // reduction), -(-found.columns // reduction))
    if levels.shape != expected:
        raise Refused(f"the JPEG has another size than the header's {found.rows} x {found.columns}")
    return levels


def _to_8_bits(dataset: Dataset, found: Header, reduction: int, plain: bool) -> np.ndarray:
    with _refusing("pixel data cannot be decoded"):
        stored = dataset.pixel_array
    if stored.shape != (found.rows, found.columns):
        raise Refused(f"pixel data of shape {stored.shape}; the header says {found.rows} x {found.columns}")
    if stored.dtype != np.uint8 or not plain:
        values = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float32)
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise Refused("its window or rescale makes grey levels that are no numbers")
        stored = np.rint((values - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    if reduction == 1:
        return stored
    size = (-(-found.columns // reduction), -(-found.rows // reduction))
    return cv2.resize(stored, size, interpolation=cv2.INTER_AREA)
