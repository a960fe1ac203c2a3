"""Bytes of a DICOM file to grey levels of the requested size, or a rejection that says why.

Only geometry and values from the fixed lists below leave this module, in results and in error messages: any
other text of a header might identify a patient. `core.runtime.prepare` keeps pydicom's warnings out of logs.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from pydicom import Dataset, dcmread, uid

from lobar.imaging import display
from lobar.imaging.display import RAW
from lobar.imaging.elements import RejectedImage, as_rejection, text, values, whole
from lobar.imaging.pixels import NO_PIXELS, REDUCED, decodes_in_process, grey_levels
from lobar.imaging.sampling import Sampling
from lobar.imaging.sandbox import WorkerLostError

__all__ = ["Header", "RejectedImage", "Sampling", "header", "network_input", "notebook_sampling"]

HEADER_BYTES = 8192
LARGEST_FILE = 256 << 20  # bytes; larger files are not read
TOO_LARGE = f"the file is larger than {LARGEST_FILE >> 20} MiB"
LARGEST_SIDE = 16384
MOST_PIXELS = 32 << 20  # the largest detectors have 20 million
SYNTAXES = (
    *RAW,
    uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1,
    uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000,
    uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K, uid.RLELossless,
)  # fmt: skip
DEFLATED = str(uid.DeflatedExplicitVRLittleEndian).encode()
RADIOGRAPHS = ("CR", "DX", "RG", "OT")
OTHER_MODALITIES = ("CT", "MG", "MR", "NM", "PT", "RF", "SC", "SR", "US", "XA")
SCANNED = "SC"  # many writers give a digitized radiograph the name of its SOP class
CHEST = ("CHEST", "THORAX", "LUNG")
VIEWS = ("AP", "PA", "LL", "RL")
PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
UNREADABLE = "damaged DICOM: its header cannot be read"
COLOURS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True, slots=True)
class Header:
    """The fields that the index keeps: the image's size in pixels and its view (one of VIEWS, or empty)."""

    rows: int
    columns: int
    view: str


def header(data: bytes, any_body_part: bool = False) -> Header:
    """Read the header from the start of a file (HEADER_BYTES are enough for most) or from the whole file.

    Raises RejectedImage if the file cannot be used, or if `data` ends before the pixel data begin. With
    `any_body_part` the user says that the images are chest radiographs, whatever their headers call them.
    """
    with as_rejection(UNREADABLE):
        file = io.BytesIO(data)
        dataset = _parsed(file, stop_before_pixels=True)
        checked = _checked(dataset, any_body_part)
        display.read(dataset)
        if data[file.tell() :][:4] not in PIXEL_DATA_TAGS:
            raise RejectedImage(NO_PIXELS)
        return checked


def network_input(
    data: bytes,
    size: int,
    sampling: Sampling,
    sandbox: Callable[[bytes, int, Sampling], tuple[np.ndarray, Header]] | None = None,
    any_body_part: bool = False,
) -> tuple[np.ndarray, Header]:
    """Decode a DICOM file to an array (size, size) of the sampling's dtype, black 0, and its header.

    `sandbox` is this function in worker processes (sandbox.Workers). It decodes the files whose decoders may
    hang or exhaust memory; without it, they are decoded in this process. `any_body_part` is that of `header`.
    Raises RejectedImage unless the file holds exactly one complete monochrome frame of a chest.
    """
    with as_rejection(UNREADABLE):
        dataset = _parsed(io.BytesIO(data))
        checked = _checked(dataset, any_body_part)
        needs_sandbox = sandbox is not None and not decodes_in_process(dataset)
    if sandbox and needs_sandbox:
        try:
            return sandbox(data, size, sampling)
        except WorkerLostError as error:
            raise RejectedImage(f"its decoder {error}") from error
    reduction = 1
    if sampling is Sampling.AREA:
        reduction = max(f for f in REDUCED if f == 1 or min(checked.rows, checked.columns) >= f * size)
    with as_rejection(UNREADABLE):
        pixels = grey_levels(dataset, checked.rows, checked.columns, reduction)
    if pixels.min() == pixels.max():
        raise RejectedImage("all pixels have the same value")
    if sampling is Sampling.NOTEBOOK:
        return notebook_sampling(pixels, size), checked
    if pixels.shape != (size, size):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    return pixels, checked


def notebook_sampling(pixels: np.ndarray, size: int) -> np.ndarray:
    """Sample uint8 `pixels` bilinearly to (size, size) without anti-aliasing: uint16 quarter grey levels.

    Equals skimage's resize(mode="reflect", anti_aliasing=False) times 1020; exactly for a square image whose
    side is an even multiple of `size`, else rounded.
    """
    step, rest = divmod(pixels.shape[0], size)
    if pixels.shape[0] == pixels.shape[1] and rest == 0 and step % 2 == 0:
        first = step // 2 - 1
        rows = pixels[first::step].astype(np.uint16) + pixels[first + 1 :: step]
        return rows[:, first::step] + rows[:, first + 1 :: step]
    exact = cv2.resize(pixels.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.rint(exact * 4).astype(np.uint16)


def _parsed(file: io.BytesIO, stop_before_pixels: bool = False) -> Dataset:
    start = file.read(1024)
    file.seek(0)
    if DEFLATED in start:
        raise RejectedImage(
            "deflated: a small file could expand to any size; store it in another transfer syntax"
        )
    return dcmread(file, stop_before_pixels=stop_before_pixels)


def _checked(dataset: Dataset, any_body_part: bool) -> Header:
    """The header of a usable image. Raises RejectedImage, with the reason, if the image cannot be used."""
    if "Rows" not in dataset or "Columns" not in dataset:
        # pydicom drops all elements if the file ends within its pixel data
        raise RejectedImage("it contains no image, or the file is truncated")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax not in SYNTAXES:
        known = syntax.name if syntax in uid.AllTransferSyntaxes else "missing or unknown"
        raise RejectedImage(f"transfer syntax is {known}; it is not supported")
    _check_kind(dataset, any_body_part)
    if (samples := whole(dataset, "SamplesPerPixel", 1)) != 1:
        raise RejectedImage(f"{samples} samples per pixel; only monochrome images are supported")
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric not in display.SHAPES:
        known = photometric if photometric in COLOURS else "missing or unknown"
        raise RejectedImage(f"PhotometricInterpretation is {known}; only MONOCHROME1 and 2 are supported")
    if (frames := whole(dataset, "NumberOfFrames", 1)) != 1:
        raise RejectedImage(f"{frames} frames; only single-frame images are supported")
    rows, columns = whole(dataset, "Rows", 0), whole(dataset, "Columns", 0)
    if not (0 < rows <= LARGEST_SIDE and 0 < columns <= LARGEST_SIDE and rows * columns <= MOST_PIXELS):
        raise RejectedImage(
            f"{rows} rows x {columns} columns; 1 to {LARGEST_SIDE} of each are supported, "
            f"and at most {MOST_PIXELS:,} pixels"
        )
    view = text(dataset, "ViewPosition")
    return Header(rows, columns, view if view in VIEWS else "")


def _check_kind(dataset: Dataset, any_body_part: bool) -> None:
    """Reject images declared as anything but a chest radiograph; many files declare nothing.

    With `any_body_part` only a modality that is never a radiograph is rejected.
    """
    modality = text(dataset, "Modality")
    other = modality in OTHER_MODALITIES and modality != SCANNED
    if modality and modality not in RADIOGRAPHS and (other or not any_body_part):
        known = modality if modality in OTHER_MODALITIES else "unknown"
        raise RejectedImage(f"Modality is {known}; only radiographs ({', '.join(RADIOGRAPHS)}) are supported")
    parts = " ".join(str(part) for part in values(dataset, "BodyPartExamined")).upper()
    if parts.strip() and not any_body_part and not any(word in parts for word in CHEST):
        raise RejectedImage(
            f"BodyPartExamined contains none of {', '.join(CHEST)}; only chests are supported, unless any "
            "body part is allowed"
        )
