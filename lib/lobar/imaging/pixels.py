"""The stored pixels of a DICOM's one frame to grey levels 0..255, or a rejection that says why."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from lobar.core.errors import LobarError

REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
RAW = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
JPEGS = (
    JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless,
)  # fmt: skip
BASELINE = 0xC0
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
GREY_TRANSFORMS = ("RescaleSlope", "WindowCenter", "ModalityLUTSequence", "VOILUTSequence")


class RejectedImage(ValueError):
    """An image that cannot be used; the text says what was found, and holds nothing about the patient."""


@contextmanager
def rejecting(what: str) -> Iterator[None]:
    """Turn whatever a damaged file makes parsers and decoders raise into a rejection.

    Neither out of memory, a missing decoder nor a told stop is the file's fault; they pass.
    """
    try:
        yield
    except (RejectedImage, MemoryError, ImportError, LobarError):
        raise
    except InvalidDicomError:
        raise RejectedImage("not a DICOM file: the mark DICM is not where it belongs") from None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise RejectedImage(f"{what}: OpenCV cannot read it") from None
    except Exception as error:  # pydicom and the decoders share no base class, and parse when asked
        raise RejectedImage(f"{what}: {type(error).__name__}") from None


def harmless(dataset: Dataset) -> bool:
    """Whether its pixels need no decoder but baseline JPEG's, which neither hangs nor balloons."""
    syntax = _syntax(dataset)
    return syntax in RAW or (syntax == JPEGBaseline8Bit and _unsigned_bytes(dataset))


def grey(dataset: Dataset, rows: int, columns: int, reduction: int) -> np.ndarray:
    """Grey levels (rows, columns) / reduction, rounded up: uint8, black 0.

    8-bit pixels come as they are stored. Others are brought to 0..255 from the range of their window, or
    from that of their values where they have none; padding is black and counts for no range.
    """
    if not dataset.get("PixelData"):
        raise RejectedImage("no pixel data")
    as_stored = _unsigned_bytes(dataset) and not any(name in dataset for name in GREY_TRANSFORMS)
    syntax = _syntax(dataset)
    if syntax in JPEGS:
        frame = _frame(dataset)
        _check_jpeg(frame, rows, columns, baseline=syntax == JPEGBaseline8Bit)
    if syntax == JPEGBaseline8Bit and _unsigned_bytes(dataset):
        stored = _jpeg(frame, reduction if as_stored else 1)
    else:
        stored = _decoded(dataset, rows, columns)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    levels = stored if as_stored else _scaled(stored, dataset, background=255 * inverted)
    if inverted:
        levels = 255 - levels
    expected = (-(-rows // reduction), -(-columns // reduction))
    if levels.shape != expected:
        levels = cv2.resize(levels, expected[::-1], interpolation=cv2.INTER_AREA)
    return levels


def _syntax(dataset: Dataset) -> UID | str:
    return dataset.file_meta.get("TransferSyntaxUID", "missing")


def _unsigned_bytes(dataset: Dataset) -> bool:
    stored = dataset.get("BitsStored", 8)
    return bool(dataset.get("BitsAllocated") == stored == 8 and not dataset.get("PixelRepresentation"))


def _jpeg(frame: bytes, reduction: int) -> np.ndarray:
    # libjpeg fills a truncated image with grey and says nothing
    if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise RejectedImage("truncated JPEG: its end marker is missing")
    # a DICOM has no EXIF, and boxes are drawn on the image as it is stored
    flags = REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    levels = cv2.imdecode(np.frombuffer(frame, np.uint8), flags)
    if levels is None:
        raise RejectedImage("damaged JPEG: it cannot be decoded")
    return levels


def _frame(dataset: Dataset) -> bytes:
    try:
        return next(generate_frames(dataset.PixelData, number_of_frames=1))
    except (ValueError, StopIteration):
        raise RejectedImage("damaged pixel data: no encapsulated frame") from None


def _check_jpeg(frame: bytes, rows: int, columns: int, baseline: bool) -> None:
    """Hold the frame's own header to the file's, before a decoder takes memory for what it says.

    The layout is that of ISO 10918-1 (B.1.1.4, B.2.2), which JPEG-LS shares (ISO 14495-1, C.2.2).
    """
    at = 2
    while frame[:2] == b"\xff\xd8" and frame[at : at + 1] == b"\xff" and len(frame) >= at + 10:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4])
        if marker in FRAME_MARKERS:
            found = int.from_bytes(frame[at + 5 : at + 7]), int.from_bytes(frame[at + 7 : at + 9])
            if found != (rows, columns):
                raise RejectedImage(
                    f"the JPEG has another size than the header's {rows} x {columns}: {found[0]} x {found[1]}"
                )
            if frame[at + 9] != 1 or (baseline and marker != BASELINE):
                raise RejectedImage("the JPEG is in colour or not baseline, unlike what the header says")
            return
        at += 1 if marker == 0xFF else 2 + length  # a marker may have bytes of 0xFF before it
    raise RejectedImage("damaged JPEG: it has no header that can be read")


def _decoded(dataset: Dataset, rows: int, columns: int) -> np.ndarray:
    needed = rows * columns * int(dataset.get("BitsAllocated", 0)) // 8
    if _syntax(dataset) in RAW and len(dataset.PixelData) not in (needed, needed + needed % 2):
        raise RejectedImage(f"{len(dataset.PixelData)} bytes of pixel data; {needed} are needed")
    with rejecting("pixel data cannot be decoded"):
        twelve_bits = _syntax(dataset) == JPEGExtended12Bit and dataset.get("BitsStored") != 8
        stored = _by_gdcm(dataset) if twelve_bits else dataset.pixel_array
    if stored.shape != (rows, columns):
        raise RejectedImage(f"pixel data of shape {stored.shape}; the header says {rows} x {columns}")
    return stored


def _by_gdcm(dataset: Dataset) -> np.ndarray:
    """The pixels of a JPEG of 12 bits, which GDCM decodes but pydicom does not ask it to."""
    import gdcm

    reader = gdcm.ImageReader()
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        dataset.save_as(file.name, enforce_file_format=True)
        reader.SetFileName(file.name)
        reader.Read()
    # its bytes come as a text
    data = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(data, np.uint16).reshape(int(dataset.Rows), int(dataset.Columns))


def _scaled(stored: np.ndarray, dataset: Dataset, background: int) -> np.ndarray:
    values = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float32)
    padding = _padding(stored, dataset)
    low, high = _range(values[~padding] if padding.any() else values, dataset)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RejectedImage("its window or rescale makes grey levels that are no numbers")
    values -= low
    values *= 255 / max(high - low, 1e-6)
    levels = np.clip(np.rint(values, out=values), 0, 255).astype(np.uint8)
    levels[padding] = background
    return levels


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Which pixels are none of the image: those of PixelPaddingValue, or up to PixelPaddingRangeLimit."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    low, high = sorted((int(value), int(dataset.get("PixelPaddingRangeLimit", value))))
    padding: np.ndarray = (stored >= low) & (stored <= high)
    return padding


def _range(values: np.ndarray, dataset: Dataset) -> tuple[float, float]:
    """What becomes black and white: what a window maps its two ends to, else the lowest and highest value."""
    if "WindowCenter" in dataset and "VOILUTSequence" not in dataset:
        values = apply_windowing(np.array([-1e9, 1e9]), dataset)
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
