"""Grey levels from every encoding, compared with the formulas of the standard."""

import io
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lobar.imaging import pixels
from tests.conftest import make_dicom, smooth_noise

FIXTURES = Path(__file__).parent / "fixtures"
# 12 bits, height and width differ, values from 5 to 4085
TWELVE = np.clip(smooth_noise(64, 48).astype(np.uint16) * 16 + 5, 5, 4085)
STORED = {"BitsStored": 12, "HighBit": 11}
RAW = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
ENCODINGS = [*RAW, RLELossless, JPEGLSLossless, JPEG2000Lossless]
RESCALE = {"RescaleSlope": 2, "RescaleIntercept": -100}


def grey(data: bytes) -> np.ndarray:
    dataset = pydicom.dcmread(io.BytesIO(data))
    return pixels.grey_levels(dataset, dataset.Rows, dataset.Columns, 1)


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("syntax", ENCODINGS, ids=lambda syntax: syntax.name)
def test_ten_to_sixteen_bits_are_scaled_from_the_range_of_their_values(syntax: UID, bits: int) -> None:
    stored = TWELVE >> 2 if bits == 10 else TWELVE << (bits - 12)
    data = make_dicom(stored, syntax, BitsStored=bits, HighBit=bits - 1)
    assert np.array_equal(grey(data), stretched(stored, stored.min(), stored.max()))


@pytest.mark.parametrize("syntax", ENCODINGS, ids=lambda syntax: syntax.name)
def test_eight_bits_keep_their_stored_values(syntax: UID) -> None:
    stored = smooth_noise(64, 48) // 2 + 30
    assert np.array_equal(grey(make_dicom(stored, syntax)), stored)


@pytest.mark.parametrize(
    ("elements", "low", "high"),
    [
        # PS3.3 C.11.2.1.2.1: a window of width w about c goes from c - 0.5 - (w-1)/2 to c - 0.5 + (w-1)/2
        ({"WindowCenter": 2000, "WindowWidth": 1001}, 1499.5, 2499.5),
        ({"WindowCenter": [2000, 5], "WindowWidth": [1001, 9]}, 1499.5, 2499.5),
        # wider than the range of the values
        ({"WindowCenter": 2048, "WindowWidth": 8193}, -2048.5, 6143.5),
        # after the rescale, in its units: 2 x - 100
        ({"WindowCenter": 3900, "WindowWidth": 2001, **RESCALE}, 1499.75, 2499.75),
        ({"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}, 1500, 2500),
        (RESCALE, TWELVE.min(), TWELVE.max()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_window_and_rescale(elements: dict[str, object], low: float, high: float, photometric: str) -> None:
    data = make_dicom(
        TWELVE, ExplicitVRLittleEndian, **STORED, PhotometricInterpretation=photometric, **elements
    )
    expected = stretched(TWELVE, low, high).astype(int)
    levels = grey(data).astype(int)
    assert np.abs(levels - (255 - expected if photometric == "MONOCHROME1" else expected)).max() <= 1


def test_a_window_gives_the_same_levels_for_jpeg_and_raw_pixels() -> None:
    stored, window = smooth_noise(256, 256), {"WindowCenter": 128, "WindowWidth": 100}
    jpeg, raw = (
        grey(make_dicom(stored, syntax, **window)).astype(int)
        for syntax in (JPEGBaseline8Bit, ExplicitVRLittleEndian)
    )
    assert np.abs(raw - stretched(stored, 78, 177)).max() <= 1
    assert np.abs(jpeg - raw).mean() < 2


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "elements",
    [
        {"PixelPaddingValue": 0},
        {"PixelPaddingValue": 65535},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4},
    ],
)
def test_padding_is_black_and_excluded_from_the_range(elements: dict[str, int], photometric: str) -> None:
    stored = TWELVE.copy()
    stored[:10] = elements["PixelPaddingValue"]
    stored[:5] = elements.get("PixelPaddingRangeLimit", elements["PixelPaddingValue"])
    levels = grey(
        make_dicom(stored, ExplicitVRLittleEndian, PhotometricInterpretation=photometric, **elements)
    )
    expected = stretched(TWELVE, TWELVE[10:].min(), TWELVE[10:].max())
    assert not levels[:10].any()
    assert np.array_equal(levels[10:], 255 - expected[10:] if photometric == "MONOCHROME1" else expected[10:])


def test_signed_pixels() -> None:
    stored = TWELVE.astype(np.int16) - 2048
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless):
        assert np.array_equal(grey(make_dicom(stored, syntax)), stretched(TWELVE, TWELVE.min(), TWELVE.max()))


def test_bits_above_bits_stored_are_ignored() -> None:
    """Older files store an overlay there."""
    overlaid = TWELVE | np.uint16(1 << 14)
    overlaid[::2] = TWELVE[::2]
    levels = grey(make_dicom(overlaid, ExplicitVRLittleEndian, **STORED))
    assert np.array_equal(levels, stretched(TWELVE, TWELVE.min(), TWELVE.max()))


@pytest.mark.parametrize(
    ("syntax", "named"),
    [
        (JPEGLossless, gdcm.TransferSyntax.JPEGLosslessProcess14),
        (JPEGLosslessSV1, gdcm.TransferSyntax.JPEGLosslessProcess14_1),
        (JPEGExtended12Bit, gdcm.TransferSyntax.JPEGExtendedProcess2_4),
    ],
)
@pytest.mark.parametrize("bits", [8, 12])
def test_jpeg_lossless_and_extended(syntax: UID, named: int, bits: int, tmp_path: Path) -> None:
    stored = TWELVE if bits == 12 else smooth_noise(64, 48)
    (tmp_path / "raw.dcm").write_bytes(
        make_dicom(stored, ExplicitVRLittleEndian, BitsStored=bits, HighBit=bits - 1)
    )
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(tmp_path / "raw.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(named))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "coded.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    data = (tmp_path / "coded.dcm").read_bytes()
    assert pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == syntax
    expected = stored if bits == 8 else stretched(stored, stored.min(), stored.max())
    assert np.abs(grey(data).astype(int) - expected).max() <= (5 if syntax == JPEGExtended12Bit else 0)


def test_a_jpeg_of_12_bits_from_another_encoder() -> None:
    """libjpeg-turbo decodes it to values from 0 to 264, which a window of 0 to 264 makes these levels.

    1,404 pixels have the value 132 in the middle of it, which is rounded to 128.
    """
    dataset = pydicom.dcmread(str(get_testdata_file("JPGExtended.dcm")))
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 132, 264, "LINEAR_EXACT"
    levels = pixels.grey_levels(dataset, dataset.Rows, dataset.Columns, 1)
    assert [*map(int, (levels.sum(), levels[141, 139], levels[236, 139]))] == [3641695, 98, 147]


@pytest.mark.parametrize("name", ["htj2k", "htj2k_lossless"])
def test_high_throughput_jpeg_2000(name: str) -> None:
    """Both are this module's TWELVE, encoded by OpenJPH."""
    expected = stretched(TWELVE, TWELVE.min(), TWELVE.max()).astype(int)
    levels = grey((FIXTURES / f"{name}.dcm").read_bytes())
    assert np.abs(levels - expected).max() <= (2 if name == "htj2k" else 0)


@pytest.mark.parametrize("name", ["bigendian", "expb", "implicit", "RLE", "jp2klossless", "jpeg_ls_lossless"])
def test_pydicoms_files_of_one_image_decode_to_the_same_levels(name: str) -> None:
    one, other = (
        Path(str(get_testdata_file(file))).read_bytes() for file in ("MR_small.dcm", f"MR_small_{name}.dcm")
    )
    assert np.ptp(grey(one)) > 100
    assert np.array_equal(grey(one), grey(other))


@pytest.mark.parametrize("name", ["mono1", "12in16", "rle", "jpegls", "j2k_lossless", "implicitLE"])
def test_a_real_image_decodes_to_the_same_levels_in_other_encodings(real_data: Path, name: str) -> None:
    one, other = (
        grey((real_data / f"dicom_compat/rsna_00436515_{encoding}.dcm").read_bytes())
        for encoding in ("explicitLE", name)
    )
    assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("RG1_J2KI", 0, 30000), ("Fake_MONOHR1", 0, 255), ("udacity_test1", 0, 255)],
)
def test_other_real_images(real_data: Path, name: str, low: int, high: int) -> None:
    """A window of the full range, an inverted copy, and a DX image."""
    data = (real_data / f"dicom_compat/{name}.dcm").read_bytes()
    dataset = pydicom.dcmread(io.BytesIO(data))
    expected = stretched(dataset.pixel_array, low, high).astype(int)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        expected = 255 - expected
    assert np.abs(grey(data) - expected).max() <= 1
