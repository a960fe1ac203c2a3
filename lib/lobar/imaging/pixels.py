"""Decodes the single frame of a DICOM dataset to grey levels 0..255, or rejects it with the reason."""

import struct
import tempfile

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from lobar.imaging import display, levels
from lobar.imaging.display import RAW, Bits
from lobar.imaging.elements import RejectedImage, as_rejection

REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
JPEGS = (
    JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless,
)  # fmt: skip
NO_PIXELS = "no pixel data"
BASELINE = 0xC0
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def decodes_in_process(dataset: Dataset) -> bool:
    """Whether the pixels are raw or 8-bit baseline JPEG, whose decoder neither hangs nor exhausts memory."""
    syntax = _syntax(dataset)
    return syntax in RAW or (syntax == JPEGBaseline8Bit and display.read_bits(dataset).unsigned_bytes)


def grey_levels(dataset: Dataset, rows: int, columns: int, reduction: int) -> np.ndarray:
    """Grey levels of shape (rows, columns) / reduction, rounded up: uint8, black 0.

    `levels` describes how pixels become grey levels. Raises RejectedImage if they cannot be decoded.
    """
    attributes = display.read(dataset)
    if not dataset.get("PixelData"):
        raise RejectedImage(NO_PIXELS)
    syntax, bits = _syntax(dataset), attributes.bits
    as_stored = bits.unsigned_bytes and levels.keeps_stored(attributes)
    if syntax in JPEGS:
        frame = _frame(dataset)
        _check_jpeg(frame, rows, columns, baseline=syntax == JPEGBaseline8Bit)
    if syntax == JPEGBaseline8Bit and bits.unsigned_bytes:
        words = _jpeg(frame, reduction if as_stored else 1)
    else:
        words = _decoded(dataset, rows, columns, bits)
    if as_stored:
        grey = 255 - words if attributes.inverted else words
    else:
        grey = levels.grey_levels(words, attributes)
    expected = (-(-rows // reduction), -(-columns // reduction))
    if grey.shape != expected:
        grey = cv2.resize(grey, expected[::-1], interpolation=cv2.INTER_AREA)
    return grey


def _syntax(dataset: Dataset) -> UID | str:
    return dataset.file_meta.get("TransferSyntaxUID", "missing")


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


def _decoded(dataset: Dataset, rows: int, columns: int, bits: Bits) -> np.ndarray:
    """The words (rows, columns) of the image, uint8 or uint16."""
    if _syntax(dataset) in RAW:
        return _raw(dataset, rows, columns, bits)
    # decoders need elements that are optional for us
    dataset.SamplesPerPixel, dataset.NumberOfFrames = 1, 1
    dataset.BitsStored, dataset.PixelRepresentation = bits.stored, int(bits.signed)
    with as_rejection("pixel data cannot be decoded"):
        if _syntax(dataset) == JPEGExtended12Bit and bits.stored != 8:
            words = _decoded_by_gdcm(dataset)
        else:
            runner = get_decoder(UID(_syntax(dataset)))
            words, _ = runner.as_array(dataset, index=0, correct_unused_bits=False)  # type: ignore[arg-type]
    if words.shape != (rows, columns):
        raise RejectedImage(f"pixel data of shape {words.shape}; the header says {rows} x {columns}")
    return words.view(f"u{bits.allocated // 8}")


def _raw(dataset: Dataset, rows: int, columns: int, bits: Bits) -> np.ndarray:
    expected, found = rows * columns * bits.allocated // 8, len(dataset.PixelData)
    # PS3.5 8.1.1 allows padding after the pixels; a second frame of bytes contradicts the header
    if not expected <= found < max(2 * expected, expected + 2):
        raise RejectedImage(f"{found} bytes of pixel data; expected {expected}")
    data, dtype = dataset.PixelData, np.dtype(f"u{bits.allocated // 8}")
    # PS3.5 A.3: 16-bit words (OW) are swapped as a whole, even if they hold two pixels of 8 bits
    if _syntax(dataset) == ExplicitVRBigEndian and (bits.allocated == 16 or dataset["PixelData"].VR == "OW"):
        data = np.frombuffer(data, np.uint16, len(data) // 2).byteswap()
    return np.frombuffer(data, dtype, rows * columns).reshape(rows, columns)


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
