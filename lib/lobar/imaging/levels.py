"""Stored pixels to grey levels, by the formulas of the DICOM standard (PS3.3 C.11.1, C.11.2; PS3.5 8.1).

Every step maps one value to one value, so the steps are applied once to each possible word of 8 or 16 bits,
and the resulting table to the pixels.
"""

import numpy as np

from lobar.imaging.display import Bits, Display, Lut, Window
from lobar.imaging.elements import RejectedImage, described

WHITE = 255
TAIL = 0.01  # share of the pixels at each end that may be outliers
REACH = 0.25  # how far beyond the other pixels a value may be, as a share of their range


def keeps_stored(display: Display) -> bool:
    """Whether the stored values are the grey levels: unsigned values of 8 bits that nothing changes."""
    if display.bits.stored != 8 or display.bits.signed:
        return False
    if not (display.modality_lut or display.voi_lut or display.window):
        return display.slope > 0  # the most frequent case needs no table
    values = np.arange(WHITE + 1)
    return np.array_equal(_levels(display, values, values), values)


def grey_levels(words: np.ndarray, display: Display) -> np.ndarray:
    """The grey levels of an image of stored words (uint8 or uint16, as allocated): uint8, black 0.

    Values of 8 bits without a VOI LUT or window are shown in their full range, those of more bits from the
    lowest to the highest value that is neither padding nor an outlier. Padding becomes black.
    """
    counts = np.bincount(words.reshape(-1), minlength=1 << display.bits.allocated)
    whole, value = _values(display.bits)
    _check_bits(words, display.bits, counts, whole, value)
    padding = np.zeros(len(value), bool)
    if display.padding and not keeps_stored(display):
        low, high = display.padding
        padding = ((low <= whole) & (whole <= high)) | ((low <= value) & (value <= high))
    levels = _levels(display, value, value[(counts > 0) & ~padding], counts[(counts > 0) & ~padding])
    if display.inverted:
        levels = WHITE - levels
    levels[padding] = 0
    return levels[words]


def _values(bits: Bits) -> tuple[np.ndarray, np.ndarray]:
    """For each possible word: its number as a whole, and the number in its stored bits."""
    words = np.arange(1 << bits.allocated)

    def signed(numbers: np.ndarray, length: int) -> np.ndarray:
        sign = 1 << (length - 1)
        return (numbers ^ sign) - sign if bits.signed else numbers

    stored = (words >> bits.shift) & ((1 << bits.stored) - 1)
    return signed(words, bits.allocated), signed(stored, bits.stored)


def _levels(
    display: Display, values: np.ndarray, present: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """The uint8 level of each of `values`, not inverted; `counts` says how often each of `present` occurs."""
    with np.errstate(all="ignore"):
        output = _modality(display, values)
        if not np.isfinite(output).all():
            raise RejectedImage(f"{described('RescaleSlope')} gives values that are not finite")
        if display.voi_lut:
            shown = _looked_up(display.voi_lut, output) / ((1 << display.voi_lut.bits) - 1)
        elif display.window:
            shown = _windowed(display.window, output)
        else:
            low, high = _range(display, present, counts)
            shown = (output - low) / max(high - low, np.finfo(float).tiny)
    return np.rint(np.clip(shown, 0, 1) * WHITE).astype(np.uint8)


def _modality(display: Display, values: np.ndarray) -> np.ndarray:
    if display.modality_lut:
        return _looked_up(display.modality_lut, values)
    return values * display.slope + display.intercept


def _looked_up(lut: Lut, values: np.ndarray) -> np.ndarray:
    """PS3.3 C.11.1.1: values below the first one get the first entry, values beyond the last one the last."""
    indices = np.clip(np.rint(values) - lut.first, 0, len(lut.entries) - 1)
    return lut.entries[indices.astype(np.int64)].astype(float)


def _windowed(window: Window, values: np.ndarray) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1 and C.11.2.1.3: 0 for black to 1 for white; may go beyond."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1
        if width == 0:
            return (values > center).astype(float)
    return (values - center) / width + 0.5


def _range(display: Display, present: np.ndarray, counts: np.ndarray | None) -> tuple[float, float]:
    """The values that become black and white without a VOI LUT or window."""
    if display.modality_lut and display.modality_lut.bits == 8:
        return 0, WHITE
    if not display.modality_lut and display.bits.stored == 8 and not display.bits.signed:
        low, high = sorted(_modality(display, np.array([0, WHITE])))
        return float(low), float(high)
    return _range_without_outliers(_modality(display, present), counts)


def _range_without_outliers(values: np.ndarray, counts: np.ndarray | None) -> tuple[float, float]:
    """The lowest and the highest value within REACH of the range that all but TAIL at each end have.

    A hot pixel or a burned-in marker is far beyond the other pixels and would make them all black.
    """
    if not values.size:
        return 0, 0
    order = np.argsort(values, kind="stable")
    values, counts = values[order], np.ones(values.size) if counts is None else counts[order]
    share = np.cumsum(counts) / counts.sum()
    low, high = values[np.searchsorted(share, [TAIL, 1 - TAIL])]
    if low == high:
        return float(values[0]), float(values[-1])
    reach = REACH * (high - low)
    kept = values[(values >= low - reach) & (values <= high + reach)]
    return float(kept[0]), float(kept[-1])


def _check_bits(
    words: np.ndarray, bits: Bits, counts: np.ndarray, whole: np.ndarray, value: np.ndarray
) -> None:
    """Raise RejectedImage if bits outside BitsStored contain pixels; overlays there are ignored.

    Where those bits change from one pixel to the next, an overlay has an edge that the stored bits alone do
    not have. If they are a part of the pixels, the stored bits alone jump by their whole range.
    """
    used = np.flatnonzero(counts)
    below = (used & ((1 << bits.shift) - 1)) != 0
    if 2 * counts[used][below].sum() > words.size:
        raise RejectedImage(
            f"{described('HighBit')} is {bits.shift + bits.stored - 1}, but there are pixels below the "
            f"{bits.stored} bits of {described('BitsStored')}"
        )
    shifted = whole >> bits.shift
    if np.array_equal(shifted[used], value[used]):
        return
    as_whole, as_stored = shifted[words], value[words]
    smoother = changes = 0
    for axis in (0, 1):
        whole_step, stored_step = np.diff(as_whole, axis=axis), np.diff(as_stored, axis=axis)
        changed = whole_step != stored_step
        changes += int(changed.sum())
        smoother += int((np.abs(whole_step) < np.abs(stored_step))[changed].sum())
    if 2 * smoother > changes:
        raise RejectedImage(
            f"{described('BitsStored')} is {bits.stored}, but the pixels have more bits; correct the header"
        )
