"""Decodes the single frame of a DICOM dataset to grey levels 0..255, or rejects it with the reason."""

import struct
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
    """An image that cannot be used. The text says what was found and contains nothing about the patient."""


@contextmanager
def as_rejection(what: str) -> Iterator[None]:
    """Turn any error that a damaged file causes in a parser or decoder into a RejectedImage.

    MemoryError, ImportError (a missing decoder) and LobarError are not the file's fault and stay as they are.
    """
    try:
        yield
    except (RejectedImage, MemoryError, ImportError, LobarError):
        raise
    except InvalidDicomError:
        raise RejectedImage("not a DICOM file: the DICM prefix is missing") from None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise RejectedImage(f"{what}: OpenCV cannot read it") from None
    except Exception as error:  # pydicom and the decoders share no base class
        raise RejectedImage(f"{what}: {type(error).__name__}") from None


def decodes_in_process(dataset: Dataset) -> bool:
    """Whether the pixels are raw or 8-bit baseline JPEG, whose decoder neither hangs nor exhausts memory."""
    syntax = _syntax(dataset)
    return syntax in RAW or (syntax == JPEGBaseline8Bit and _unsigned_bytes(dataset))


def grey_levels(dataset: Dataset, rows: int, columns: int, reduction: int) -> np.ndarray:
    """Grey levels of shape (rows, columns) / reduction, rounded up: uint8, black 0.

    8-bit pixels without a window or rescale keep their stored values. Others are scaled to 0..255 from the
    range of their window, else from the range of their values without padding; padding becomes black.
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
    # libjpeg fills a truncated image with grey and reports no error
    if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise RejectedImage("truncated JPEG: its end marker is missing")
    # boxes refer to the image as stored, so an EXIF orientation does not apply
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
    """Check that the JPEG's frame header matches the DICOM header, before a decoder allocates memory for it.

    Layout: ISO 10918-1 (B.1.1.4, B.2.2), the same in JPEG-LS (ISO 14495-1, C.2.2).
    """
    start = 2
    while frame[:2] == b"\xff\xd8" and frame[start : start + 1] == b"\xff" and len(frame) >= start + 10:
        marker, length = frame[start + 1], int.from_bytes(frame[start + 2 : start + 4])
        if marker in FRAME_MARKERS:
            height, width, components = struct.unpack_from(">HHB", frame, start + 5)
            if (height, width) != (rows, columns):
                raise RejectedImage(
                    f"the JPEG has {height} rows x {width} columns; the DICOM header says {rows} x {columns}"
                )
            if components != 1 or (baseline and marker != BASELINE):
                raise RejectedImage("the JPEG is in colour or not baseline, unlike the DICOM header")
            return
        start += 1 if marker == 0xFF else 2 + length  # 0xFF bytes may precede a marker as padding
    raise RejectedImage("damaged JPEG: it has no readable frame header")


def _decoded(dataset: Dataset, rows: int, columns: int) -> np.ndarray:
    expected = rows * columns * int(dataset.get("BitsAllocated", 0)) // 8
    if _syntax(dataset) in RAW and len(dataset.PixelData) not in (expected, expected + expected % 2):
        raise RejectedImage(f"{len(dataset.PixelData)} bytes of pixel data; expected {expected}")
    with as_rejection("pixel data cannot be decoded"):
        twelve_bits = _syntax(dataset) == JPEGExtended12Bit and dataset.get("BitsStored") != 8
        stored = _decoded_by_gdcm(dataset) if twelve_bits else dataset.pixel_array
    if stored.shape != (rows, columns):
        raise RejectedImage(f"pixel data of shape {stored.shape}; the header says {rows} x {columns}")
    return stored


def _decoded_by_gdcm(dataset: Dataset) -> np.ndarray:
    """The pixels of a 12-bit JPEG, which GDCM decodes but pydicom's GDCM plugin does not support."""
    import gdcm

    reader = gdcm.ImageReader()
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        dataset.save_as(file.name, enforce_file_format=True)
        reader.SetFileName(file.name)
        reader.Read()
    # GDCM returns bytes as str
    data = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(data, np.uint16).reshape(int(dataset.Rows), int(dataset.Columns))


def _scaled(stored: np.ndarray, dataset: Dataset, background: int) -> np.ndarray:
    values = apply_voi_lut(apply_modality_lut(stored, dataset), dataset).astype(np.float32)
    padding = _padding(stored, dataset)
    low, high = _range(values[~padding] if padding.any() else values, dataset)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RejectedImage("its window or rescale values give grey levels that are not finite")
    values -= low
    values *= 255 / max(high - low, 1e-6)
    levels = np.clip(np.rint(values, out=values), 0, 255).astype(np.uint8)
    levels[padding] = background
    return levels


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Which pixels are padding: from PixelPaddingValue to PixelPaddingRangeLimit, inclusive."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    low, high = sorted((int(value), int(dataset.get("PixelPaddingRangeLimit", value))))
    padding: np.ndarray = (stored >= low) & (stored <= high)
    return padding


def _range(values: np.ndarray, dataset: Dataset) -> tuple[float, float]:
    """The values that become black and white: the ends of the window's output, else the extreme values."""
    if "WindowCenter" in dataset and "VOILUTSequence" not in dataset:
        values = apply_windowing(np.array([-1e9, 1e9]), dataset)
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
