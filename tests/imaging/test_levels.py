"""Silent changes of grey: identities, outliers, bits and padding, compared with formulas of the standard."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from lobar.imaging.dicom import RejectedImage, network_input
from lobar.imaging.sampling import Sampling
from tests.conftest import make_dicom, smooth_noise

# 12 bits in 16, from 200 to 3800, with noise
RAMP = np.linspace(200, 3800, 256 * 256).reshape(256, 256)
RAMP = (RAMP + np.random.default_rng(0).normal(0, 20, RAMP.shape)).clip(200, 3800).astype(np.uint16)
STORED = {"BitsStored": 12, "HighBit": 11}


def lut(entries: np.ndarray, bits: int, first: int = 0, vr: str = "US") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % (1 << 16), first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


def grey(data: bytes, size: int = 256) -> np.ndarray:
    return network_input(data, size, Sampling.AREA)[0].astype(int)


def raw(pixels: np.ndarray, **elements: object) -> bytes:
    return make_dicom(pixels, ExplicitVRLittleEndian, **elements)


def changed(data: bytes, **elements: object) -> bytes:
    """The file with other elements."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    for name, value in elements.items():
        setattr(dataset, name, value)
        if dataset[name].VR == "US or SS":
            dataset[name].VR = "US"
    body = io.BytesIO()
    dataset.save_as(body)
    return body.getvalue()


EACH = np.arange(256)
IDENTITIES: list[dict[str, object]] = [
    {"RescaleSlope": 1, "RescaleIntercept": 0},
    {"RescaleSlope": 1, "RescaleIntercept": -1024},
    {"RescaleSlope": 0.25, "RescaleIntercept": 3},
    {"WindowCenter": 128, "WindowWidth": 256},
    {"WindowCenter": 127.5, "WindowWidth": 255, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 228, "WindowWidth": 256, "RescaleSlope": 1, "RescaleIntercept": 100},
    {"ModalityLUTSequence": lut(EACH, 8)},
    {"VOILUTSequence": lut(EACH, 8)},
    {"ModalityLUTSequence": lut(EACH * 257, 16), "VOILUTSequence": lut(np.arange(1 << 16), 16)},
    {"VOILUTSequence": lut(EACH, 8, 65436, "US"), "RescaleSlope": 1, "RescaleIntercept": -100},
    {"PresentationLUTShape": "IDENTITY"},
    {"PixelPaddingValue": 255, "RescaleSlope": 1, "RescaleIntercept": 0},
    {"WindowCenter": None, "WindowWidth": None, "VOILUTFunction": None, "RescaleSlope": None},
]


@pytest.mark.parametrize("elements", IDENTITIES, ids=",".join)
def test_an_identity_changes_nothing_of_a_real_image(real_data: Path, elements: dict[str, object]) -> None:
    """Nor does the faster decoding at a reduced scale become a slower one with other rounding."""
    files = sorted((real_data / "rsna_sample/stage_2_train_images").glob("*.dcm"))
    for file in files[:: 1 if "RescaleSlope" in elements else 6]:
        data = file.read_bytes()
        assert np.array_equal(grey(data), grey(changed(data, **elements)))


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("elements", IDENTITIES[:10], ids=",".join)
def test_an_identity_changes_nothing(elements: dict[str, object], photometric: str, syntax: UID) -> None:
    pixels = smooth_noise(256, 256) // 2 + 40
    plain = make_dicom(pixels, syntax, PhotometricInterpretation=photometric)
    assert np.array_equal(grey(plain), grey(changed(plain, **elements)))


def test_a_negative_slope_without_a_window_inverts_values_of_eight_bits() -> None:
    pixels = smooth_noise(256, 256) // 2 + 40
    assert np.array_equal(grey(raw(pixels, RescaleSlope=-1, RescaleIntercept=255)), 255 - pixels.astype(int))


def test_monochrome1_with_the_shape_inverse_is_inverted_once() -> None:
    plain = raw(RAMP, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(grey(changed(plain, PresentationLUTShape="INVERSE")), grey(plain))
    assert np.array_equal(grey(plain), 255 - grey(raw(RAMP)))


TRANSFORMS: list[dict[str, object]] = [
    {"WindowCenter": 2000, "WindowWidth": 1500},
    {"WindowCenter": 2000, "WindowWidth": 1},
    {"WindowCenter": [1800.5, 3], "WindowWidth": [3000.25, 4], "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": 0.5, "WindowWidth": 0.913, "RescaleSlope": 0.000244, "RescaleIntercept": 0,
     "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 0.5, "WindowWidth": 0.913, "RescaleSlope": 0.000244, "RescaleIntercept": 0,
     "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": 1000, "WindowWidth": 2000, "RescaleSlope": 1, "RescaleIntercept": -1024},
    {"WindowCenter": -1000, "WindowWidth": 2000, "RescaleSlope": -1, "RescaleIntercept": 1024},
    {"ModalityLUTSequence": lut((np.arange(4096) ** 2 >> 12), 16), "WindowCenter": 1000, "WindowWidth": 1800},
    {"VOILUTSequence": lut(np.sqrt(np.arange(3000) * 4095).astype(int), 12, first=500)},
    {"VOILUTSequence": lut(np.arange(4096) * 16, 16), "RescaleSlope": 1, "RescaleIntercept": 100},
    {"VOILUTSequence": lut(np.arange(4096)[::-1], 12, -1000, "SS"), "RescaleSlope": 1,
     "RescaleIntercept": -1000},
]  # fmt: skip


def has_table(elements: dict[str, object]) -> bool:
    return "LUTSequence" in "".join(elements)


@pytest.mark.parametrize(
    ("elements", "signed"),
    # pydicom's tables are for unsigned pixels
    [(each, signed) for each in TRANSFORMS for signed in (False, True) if not (signed and has_table(each))],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "signed" if value else "unsigned",
)
def test_real_images_of_twelve_bits_are_shown_as_pydicom_shows_them(
    real_data: Path, elements: dict[str, object], signed: bool
) -> None:
    """pydicom computes every pixel by the formulas of PS3.3 C.11, in the full range of the output."""
    file = sorted((real_data / "rsna_sample/stage_2_train_images").glob("*.dcm"))[3]
    pixels = pydicom.dcmread(file).pixel_array[::4, ::4].astype(np.uint16) * 16 + 7
    bits = {"BitsStored": 13, "HighBit": 12} if signed else STORED
    data = raw(pixels.astype(np.int16) - 500 if signed else pixels, **bits, **elements)
    dataset = pydicom.dcmread(io.BytesIO(data))
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(float)
    if voi := dataset.get("VOILUTSequence"):
        low, high = 0, (1 << voi[0].LUTDescriptor[2]) - 1
    else:
        ends = np.array([-4096, 4095] if signed else [0, 4095])
        modality = apply_modality_lut(ends, dataset)
        low, high = (0, 65535) if "ModalityLUTSequence" in dataset else (modality[0], modality[1])
    expected = (shown - low) / (high - low) * 255
    assert np.ptp(expected) > 100
    assert np.abs(grey(data) - expected).max() <= 0.5 + 1e-6


def test_a_width_below_one_without_a_function_is_taken_as_exact() -> None:
    small = {"WindowCenter": 0.5, "WindowWidth": 0.913, "RescaleSlope": 0.000244, "RescaleIntercept": 0}
    exact = raw(RAMP, **STORED, **small, VOILUTFunction="LINEAR_EXACT")
    assert np.array_equal(grey(raw(RAMP, **STORED, **small)), grey(exact))
    assert np.ptp(grey(exact)) > 200


@pytest.mark.parametrize("value", [65535, 0], ids=["bright", "dark"])
@pytest.mark.parametrize("count", [1, 30, 600])
def test_hot_pixels_and_markers_do_not_change_the_other_pixels(count: int, value: int) -> None:
    pixels = RAMP + np.uint16(10_000)
    plain = grey(raw(pixels))
    pixels.reshape(-1)[np.random.default_rng(0).permutation(pixels.size)[:count]] = value
    kept = pixels != value
    assert np.abs(grey(raw(pixels)) - plain)[kept].max() <= 1
    assert set(grey(raw(pixels))[~kept]) == {255 if value else 0}


def test_without_outliers_the_range_is_that_of_all_values() -> None:
    levels = grey(raw(RAMP))
    expected = np.rint((RAMP - 200.0) / 3600 * 255)
    assert np.array_equal(levels, expected)


def test_a_small_image_on_an_empty_background_keeps_its_range() -> None:
    pixels = np.zeros((256, 256), np.uint16)
    pixels[100:120, 100:120] = RAMP[:20, :20] * 3 + np.arange(20, dtype=np.uint16) * 100
    assert len(np.unique(grey(raw(pixels)))) > 15


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["raw", "RLE"])
@pytest.mark.parametrize("high", [12, 13, 15])
def test_pixels_at_the_high_end_of_their_words(high: int, syntax: UID, signed: bool) -> None:
    pixels = RAMP.astype(np.int16) - 2000 if signed else RAMP
    right = grey(raw(pixels, **STORED))
    left = make_dicom(pixels << (high - 11), syntax, BitsStored=12, HighBit=high)
    assert np.array_equal(grey(left), right)
    overlaid = pixels << (high - 11)
    overlaid[10:20, 10:20] |= 1
    assert np.array_equal(grey(make_dicom(overlaid, syntax, BitsStored=12, HighBit=high)), right)


def test_pixels_at_the_low_end_that_are_said_to_be_at_the_high_end_are_rejected() -> None:
    with pytest.raises(
        RejectedImage, match=r"HighBit \(0028,0102\) is 15, but there are pixels below the 12"
    ):
        grey(raw(RAMP, BitsStored=12, HighBit=15))


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("bits", [8, 10, 11])
def test_pixels_with_more_bits_than_stored_are_rejected(bits: int, syntax: UID, signed: bool) -> None:
    data = make_dicom(RAMP.astype(np.int16) - 2000 if signed else RAMP, syntax)
    with pytest.raises(
        RejectedImage, match=r"BitsStored \(0028,0101\) is \d+, but the pixels have more bits"
    ):
        grey(changed(data, BitsStored=bits, HighBit=bits - 1))


@pytest.mark.parametrize("bit", [12, 13, 15])
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_an_overlay_in_unused_bits_is_ignored(bit: int, signed: bool) -> None:
    pixels = RAMP.astype(np.int16) - 2000 if signed else RAMP
    words = pixels.astype(np.uint16) & np.uint16(0x0FFF)
    words[50:90, 20:200] |= np.uint16(1 << bit)  # a box of text
    words[::16, ::16] |= np.uint16(1 << bit)
    overlaid = changed(raw(pixels, **STORED), PixelData=words.tobytes())
    assert np.array_equal(grey(overlaid), grey(raw(pixels, **STORED)))


@pytest.mark.parametrize(
    ("padding", "written"),
    [(-2000, ("SS", -2000)), (-2000, ("US", 63536)), (-2048, ("US", 63488)), (-2000, ("DS", "-2000")),
     (-2000, ("SL", -2000))],
    ids=str,
)  # fmt: skip
def test_padding_of_signed_pixels_in_any_vr(padding: int, written: tuple[str, object]) -> None:
    pixels = RAMP.astype(np.int16) - 1000
    pixels[:20] = pixels[20:40]
    plain = grey(raw(pixels))[20:]
    pixels[:20] = padding
    dataset = pydicom.dcmread(io.BytesIO(raw(pixels)))
    dataset.add_new("PixelPaddingValue", *written)
    body = io.BytesIO()
    dataset.save_as(body)
    levels = grey(body.getvalue())
    assert not levels[:20].any()
    assert np.abs(levels[20:] - plain).max() <= 1


def test_padding_of_unsigned_pixels_written_as_a_negative_number() -> None:
    pixels = RAMP.copy()
    pixels[:20] = 63536
    dataset = pydicom.dcmread(io.BytesIO(raw(pixels)))
    dataset.add_new("PixelPaddingValue", "SS", -2010)
    dataset.add_new("PixelPaddingRangeLimit", "SS", -1990)
    body = io.BytesIO()
    dataset.save_as(body)
    assert not grey(body.getvalue())[:20].any()


def test_padding_outside_the_stored_bits() -> None:
    pixels = RAMP.copy()
    pixels[:20] = pixels[20:40]
    plain = grey(raw(pixels, **STORED))
    pixels[:20] = 65535
    levels = grey(raw(pixels, **STORED, PixelPaddingValue=65535))
    assert not levels[:20].any()
    assert np.abs(levels[20:] - plain[20:]).max() <= 1


@pytest.mark.parametrize("spare", [1, 2, 512, 60_000])
def test_bytes_after_the_pixels_are_cut(spare: int) -> None:
    pixels = smooth_noise(256, 256)
    longer = raw(pixels, PixelData=pixels.tobytes() + b"\xa5" * spare)
    assert np.array_equal(grey(longer), pixels)


def test_a_whole_frame_after_the_pixels_is_no_padding() -> None:
    with pytest.raises(RejectedImage, match="131072 bytes of pixel data; expected 65536"):
        grey(raw(smooth_noise(256, 256), PixelData=bytes(2 * 65536)))
