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

from lobar.imaging.pixels import RAW, REDUCED, RejectedImage, as_rejection, decodes_in_process, grey_levels
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
CHEST = ("CHEST", "THORAX", "LUNG")
VIEWS = ("AP", "PA", "LL", "RL")
COLOURS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True, slots=True)
class Header:
    """The fields that the index keeps: the image's size in pixels and its view (one of VIEWS, or empty)."""

    rows: int
    columns: int
    view: str


def header(data: bytes) -> Header:
    """Read the header from the start of a file (HEADER_BYTES are enough for most) or from the whole file.

    Raises RejectedImage if the file cannot be used, or if `data` ends before its header does.
    """
    with as_rejection("damaged DICOM"):
        return _checked(_parsed(data, stop_before_pixels=True))


def network_input(
    data: bytes,
    size: int,
    sampling: Sampling,
    sandbox: Callable[[bytes, int, Sampling], tuple[np.ndarray, Header]] | None = None,
) -> tuple[np.ndarray, Header]:
    """Decode a DICOM file to an array (size, size) of the sampling's dtype, black 0, and its header.

    `sandbox` is this function in worker processes (sandbox.Workers). It decodes the files whose decoders may
    hang or exhaust memory; without it, they are decoded in this process. Raises RejectedImage unless the file
    holds exactly one complete monochrome frame of a chest.
    """
    with as_rejection("damaged DICOM"):
        dataset = _parsed(data)
        checked = _checked(dataset)
        needs_sandbox = sandbox is not None and not decodes_in_process(dataset)
    if sandbox and needs_sandbox:
        try:
            return sandbox(data, size, sampling)
        except WorkerLostError as error:
            raise RejectedImage(f"its decoder {error}") from error
    reduction = 1
    if sampling is Sampling.AREA:
        reduction = max(f for f in REDUCED if f == 1 or min(checked.rows, checked.columns) >= f * size)
    with as_rejection("damaged DICOM"):
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


def _parsed(data: bytes, stop_before_pixels: bool = False) -> Dataset:
    if DEFLATED in data[:1024]:
        raise RejectedImage(
            "deflated: a small file could expand to any size; store it in another transfer syntax"
        )
    return dcmread(io.BytesIO(data), stop_before_pixels=stop_before_pixels)


def _checked(dataset: Dataset) -> Header:
    """The header of a usable image. Raises RejectedImage, with the reason, if the image cannot be used."""
    if "Rows" not in dataset or "Columns" not in dataset:
        # pydicom drops all elements if the file ends within its pixel data
        raise RejectedImage("it contains no image, or the file is truncated")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax not in SYNTAXES:
        known = syntax.name if syntax in uid.AllTransferSyntaxes else "missing or unknown"
        raise RejectedImage(f"transfer syntax is {known}; it is not supported")
    _check_kind(dataset)
    if (samples := int(dataset.get("SamplesPerPixel", 1))) != 1:
        raise RejectedImage(f"{samples} samples per pixel; only monochrome images are supported")
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        known = photometric if photometric in COLOURS else "missing or unknown"
        raise RejectedImage(f"PhotometricInterpretation is {known}; only MONOCHROME1 and 2 are supported")
    if (bits := int(dataset.get("BitsAllocated") or 0)) not in (8, 16):
        raise RejectedImage(f"{bits} bits per pixel; only 8 and 16 are supported")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        raise RejectedImage(f"{frames} frames; only single-frame images are supported")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if not (0 < rows <= LARGEST_SIDE and 0 < columns <= LARGEST_SIDE and rows * columns <= MOST_PIXELS):
        raise RejectedImage(
            f"{rows} rows x {columns} columns; 1 to {LARGEST_SIDE} of each are supported, "
            f"and at most {MOST_PIXELS:,} pixels"
        )
    view = str(dataset.get("ViewPosition") or "")
    return Header(rows, columns, view if view in VIEWS else "")


def _check_kind(dataset: Dataset) -> None:
    """Reject images declared as anything but a chest radiograph; many files declare nothing."""
    modality = str(dataset.get("Modality") or "")
    if modality and modality not in RADIOGRAPHS:
        known = modality if modality in OTHER_MODALITIES else "unknown"
        raise RejectedImage(f"Modality is {known}; only radiographs ({', '.join(RADIOGRAPHS)}) are supported")
    part = str(dataset.get("BodyPartExamined") or "").upper()
    if part and not any(word in part for word in CHEST):
        raise RejectedImage(
            f"BodyPartExamined contains none of {', '.join(CHEST)}; only chests are supported"
        )
