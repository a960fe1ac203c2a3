"""How the header says that stored pixels become grey levels: the display attributes, read in one place.

label-index reads headers only, training and prediction whole files; both read the display attributes here,
so both reject the same files for the same reasons.
"""

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from lobar.imaging.elements import (
    RejectedImage,
    as_rejection,
    described,
    number,
    numbers,
    text,
    values,
    whole,
)

RAW = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
# PS3.3 C.8.11.3: the presentation LUT shape says again which end of the range is black
SHAPES = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}


@dataclass(frozen=True, slots=True)
class Bits:
    """How a pixel lies in its word of `allocated` bits: `stored` bits, of which `shift` bits are below."""

    allocated: int
    stored: int
    shift: int
    signed: bool

    @property
    def unsigned_bytes(self) -> bool:
        return self.allocated == self.stored == 8 and not self.signed

    def wrapped(self, value: int) -> int:
        """A value as the word can hold it: VR US and SS write the same bits as different numbers."""
        value %= 1 << self.allocated
        return value - (1 << self.allocated) if self.signed and value >> (self.allocated - 1) else value


@dataclass(frozen=True, slots=True)
class Lut:
    """A lookup table: the value of its first entry, its entries, and the bits of an entry."""

    first: int
    entries: np.ndarray
    bits: int


@dataclass(frozen=True, slots=True)
class Window:
    """A window on values; `function` is LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str


@dataclass(frozen=True, slots=True)
class Display:
    """The display attributes of an image.

    inverted: its lowest values are white. padding: the lowest and the highest padding value. Then what is
    applied, in this order: the modality LUT, else slope and intercept; the VOI LUT, else the window.
    """

    bits: Bits
    inverted: bool
    padding: tuple[int, int] | None
    modality_lut: Lut | None
    slope: float
    intercept: float
    voi_lut: Lut | None
    window: Window | None


def read_bits(dataset: Dataset) -> Bits:
    """The bits of a pixel. Raises RejectedImage if they are contradictory."""
    allocated = whole(dataset, "BitsAllocated", 0)
    if allocated not in (8, 16):
        raise RejectedImage(f"{allocated} bits per pixel; only 8 and 16 are supported")
    stored = whole(dataset, "BitsStored", whole(dataset, "HighBit", allocated - 1) + 1)
    if not 1 <= stored <= allocated:
        raise RejectedImage(f"{described('BitsStored')} is {stored}; 1 to {allocated} are possible")
    signed = whole(dataset, "PixelRepresentation", 0)
    if signed not in (0, 1):
        raise RejectedImage(f"{described('PixelRepresentation')} is {signed}; 0 and 1 are possible")
    shift = 0
    # in other encodings the compressed data define how the pixels are aligned
    if dataset.file_meta.get("TransferSyntaxUID") in (*RAW, RLELossless):
        high = whole(dataset, "HighBit", stored - 1)
        if not stored - 1 <= high < allocated:
            possible = f"{stored - 1} to {allocated - 1} are possible with {stored} bits stored"
            raise RejectedImage(f"{described('HighBit')} is {high}; {possible}")
        shift = high + 1 - stored
    return Bits(allocated, stored, shift, bool(signed))


def read(dataset: Dataset) -> Display:
    """The display attributes of a monochrome image. Raises RejectedImage, which names the element.

    Half of a pair (a center without a width, a slope without an intercept) counts as absent, as in pydicom.
    """
    bits = read_bits(dataset)
    photometric, shape = text(dataset, "PhotometricInterpretation"), text(dataset, "PresentationLUTShape")
    if shape and shape != SHAPES[photometric]:
        known = shape if shape in SHAPES.values() else "unknown"
        needed = SHAPES[photometric]
        raise RejectedImage(f"{described('PresentationLUTShape')} is {known}; {photometric} needs {needed}")
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        slope, intercept = 1.0, 0.0
    if slope == 0:
        raise RejectedImage(f"{described('RescaleSlope')} is 0: all pixels would have the same value")
    modality_lut = _lut(dataset, "ModalityLUTSequence", bits.signed)
    lowest = -(1 << (bits.stored - 1)) if bits.signed else 0
    reaches_below_zero = modality_lut is None and min(lowest * slope, 0) + intercept < 0
    voi_lut = _lut(dataset, "VOILUTSequence", reaches_below_zero)
    return Display(
        bits=bits,
        inverted=photometric == "MONOCHROME1",
        padding=_padding(dataset, bits),
        modality_lut=modality_lut,
        slope=slope,
        intercept=intercept,
        voi_lut=voi_lut,
        window=_window(dataset) if voi_lut is None else None,
    )


def _padding(dataset: Dataset, bits: Bits) -> tuple[int, int] | None:
    value = number(dataset, "PixelPaddingValue")
    if value is None:
        return None
    one = whole(dataset, "PixelPaddingValue", 0)
    other = whole(dataset, "PixelPaddingRangeLimit", one)
    low, high = sorted((bits.wrapped(one), bits.wrapped(other)))
    return low, high


def _window(dataset: Dataset) -> Window | None:
    """The first window that has both a center and a width."""
    pairs = zip(numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth"), strict=False)
    for center, width in pairs:
        if center is None or width is None:
            continue
        if width <= 0:
            raise RejectedImage(f"{described('WindowWidth')} is {width:g}; a width above 0 is expected")
        function = text(dataset, "VOILUTFunction") or "LINEAR"
        if function not in FUNCTIONS:
            raise RejectedImage(
                f"{described('VOILUTFunction')} is unknown; {', '.join(FUNCTIONS)} are supported"
            )
        # LINEAR is not defined for widths below 1, which files with values in small units have
        return Window(center, width, "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function)
    return None


def _lut(dataset: Dataset, keyword: str, signed_input: bool) -> Lut | None:
    """The first item of a LUT sequence; None if there is none, or it has no descriptor or no data."""
    item = next(iter(values(dataset, keyword)), None)
    if item is None:
        return None
    if not isinstance(item, Dataset):
        raise RejectedImage(f"{described(keyword)} is not a sequence")
    descriptor, data = numbers(item, "LUTDescriptor"), values(item, "LUTData")
    if not descriptor or not data:
        return None
    with as_rejection(f"{described(keyword)}: {described('LUTDescriptor')} is not three whole numbers"):
        count, first, bits = (int(value) for value in descriptor if value is not None)
    count = count % (1 << 16) or 1 << 16
    first %= 1 << 16
    if signed_input and first >> 15:
        first -= 1 << 16
    if not 8 <= bits <= 16:
        raise RejectedImage(f"{described(keyword)}: {bits} bits per entry; 8 to 16 are supported")
    with as_rejection(f"{described(keyword)}: {described('LUTData')} cannot be read"):
        entries = _entries(data, count, dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian)
    if len(entries) != count:
        raise RejectedImage(f"{described(keyword)}: {len(entries)} entries; its descriptor says {count}")
    if entries.max() >> bits:
        raise RejectedImage(
            f"{described(keyword)}: an entry is {entries.max()}; its descriptor says {bits} bits"
        )
    return Lut(first, entries, bits)


def _entries(data: list[object], count: int, big_endian: bool) -> np.ndarray:
    """The entries of LUTData, which are numbers (VR US, SS) or bytes (VR OW), of 8 or 16 bits each."""
    if not isinstance(data[0], bytes):
        return np.array(data, np.int64) % (1 << 16)
    if count <= len(data[0]) <= count + count % 2:
        return np.frombuffer(data[0], np.uint8)[:count].astype(np.int64)
    return np.frombuffer(data[0], ">u2" if big_endian else "<u2").astype(np.int64)
