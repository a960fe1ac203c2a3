"""Bytes of a DICOM file to grey levels at a wanted size, or a rejection that says why.

Nothing of a header leaves this module but numbers of its geometry, and a view and a kind of image that the
standard names: any other text might be a patient's.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from pydicom import Dataset, config, dcmread, uid

from lobar.imaging.pixels import RAW, REDUCED, RejectedImage, grey, harmless, rejecting
from lobar.imaging.sampling import Sampling
from lobar.imaging.sandbox import LostError

__all__ = ["Header", "RejectedImage", "Sampling", "header", "network_input", "notebook_sampling"]

# pydicom's warnings quote header values, which must not reach a log
config.settings.reading_validation_mode = config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\.")

HEADER_BYTES = 8192
LARGEST_FILE = 256 << 20  # bytes; a larger one is not read
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
    """What the index keeps of a header: the image's size in pixels and its view (one of VIEWS or empty)."""

    rows: int
    columns: int
    view: str


def header(data: bytes) -> Header:
    """Read the header from a file's beginning (HEADER_BYTES are enough for most) or from all of it.

    Raises RejectedImage where these bytes cannot become an image; the whole file may, if they are only its
    beginning.
    """
    with rejecting("damaged DICOM"):
        return _checked(_parsed(data, stop_before_pixels=True))


def network_input(
    data: bytes,
    size: int,
    sampling: Sampling,
    apart: Callable[[bytes, int, Sampling], tuple[np.ndarray, Header]] | None = None,
) -> tuple[np.ndarray, Header]:
    """Decode a DICOM file to (size, size) in the sampling's integer levels, black 0, with its header.

    A file that needs a decoder which may hang or balloon goes to `apart`: this function in a process of its
    own, lobar.apart.Workers. Raises RejectedImage for anything but one complete monochrome frame of a chest.
    """
    with rejecting("damaged DICOM"):
        dataset = _parsed(data)
        found = _checked(dataset)
        alone = apart is not None and not harmless(dataset)
    if apart and alone:
        return _decoded_apart(data, size, sampling, apart)
    reduction = 1
    if sampling is Sampling.AREA:
        reduction = max(f for f in REDUCED if f == 1 or min(found.rows, found.columns) >= f * size)
    with rejecting("damaged DICOM"):
        pixels = grey(dataset, found.rows, found.columns, reduction)
    if pixels.min() == pixels.max():
        raise RejectedImage("every pixel is the same: there is no image")
    if sampling is Sampling.NOTEBOOK:
        return notebook_sampling(pixels, size), found
    if pixels.shape != (size, size):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    return pixels, found


def _decoded_apart(
    data: bytes, size: int, sampling: Sampling, apart: Callable[..., tuple[np.ndarray, Header]]
) -> tuple[np.ndarray, Header]:
    try:
        return apart(data, size, sampling)
    except LostError as error:
        raise RejectedImage(f"its decoder {error}") from error


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


def _parsed(data: bytes, stop_before_pixels: bool = False) -> Dataset:
    if DEFLATED in data[:1024]:
        raise RejectedImage(
            "deflated: a small file could unfold to any size; store it in another transfer syntax"
        )
    return dcmread(io.BytesIO(data), stop_before_pixels=stop_before_pixels)


def _checked(dataset: Dataset) -> Header:
    """The header of an image that can be used. Raises RejectedImage with what was found where it cannot."""
    if "Rows" not in dataset or "Columns" not in dataset:
        # pydicom drops everything where the file ends inside its pixel data
        raise RejectedImage("it holds no image, or ends before it does")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax not in SYNTAXES:
        named = syntax.name if syntax in uid.AllTransferSyntaxes else "missing or unknown"
        raise RejectedImage(f"its transfer syntax is {named}, which is not read")
    _check_kind(dataset)
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise RejectedImage(
            f"{int(dataset.SamplesPerPixel)} samples per pixel; only monochrome images are read"
        )
    photometric = dataset.get("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        named = photometric if photometric in COLOURS else "missing or unknown"
        raise RejectedImage(f"PhotometricInterpretation is {named}; only MONOCHROME1 and 2 are read")
    if (bits := int(dataset.get("BitsAllocated") or 0)) not in (8, 16):
        raise RejectedImage(f"{bits} bits a pixel; 8 and 16 are read")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        raise RejectedImage(f"{frames} frames; only single images are read")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if not (0 < rows <= LARGEST_SIDE and 0 < columns <= LARGEST_SIDE and rows * columns <= MOST_PIXELS):
        raise RejectedImage(
            f"{rows} rows x {columns} columns; from 1 to {LARGEST_SIDE} are read, "
            f"and {MOST_PIXELS:,} pixels in all"
        )
    view = str(dataset.get("ViewPosition") or "")
    return Header(rows, columns, view if view in VIEWS else "")


def _check_kind(dataset: Dataset) -> None:
    """Reject what says that it is no radiograph of a chest; many files do not say it is one."""
    modality = str(dataset.get("Modality") or "")
    if modality and modality not in RADIOGRAPHS:
        named = modality if modality in OTHER_MODALITIES else "another than these"
        raise RejectedImage(f"its Modality is {named}; radiographs ({', '.join(RADIOGRAPHS)}) are read")
    part = str(dataset.get("BodyPartExamined") or "").upper()
    if part and not any(word in part for word in CHEST):
        raise RejectedImage(f"its BodyPartExamined has none of {', '.join(CHEST)}: only chests are read")
