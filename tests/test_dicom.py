import io
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from skimage.transform import resize

from lobar.dicom import HEADER_BYTES, Header, Refused, Sampling, header, network_input, notebook_sampling
from tests.conftest import make_dicom, smooth_noise


def area_mean(pixels: np.ndarray, size: int) -> np.ndarray:
    step = pixels.shape[0] // size
    return pixels.reshape(size, step, size, step).mean(axis=(1, 3))


def test_area_sampling_is_the_mean_over_each_pixels_area() -> None:
    data = make_dicom(smooth_noise(1024, 1024))
    full = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).pixel_array
    levels, found = network_input(data, 256, Sampling.AREA)
    assert levels.dtype == np.uint8
    assert found == Header(1024, 1024, "PA")
    assert np.abs(levels - area_mean(full, 256)).max() <= 2


def test_area_sampling_of_a_size_that_no_jpeg_scale_meets() -> None:
    pixels = smooth_noise(900, 700)
    levels, _ = network_input(make_dicom(pixels, ExplicitVRLittleEndian), 200, Sampling.AREA)
    assert (
        np.abs(levels.astype(int) - cv2.resize(pixels, (200, 200), interpolation=cv2.INTER_AREA)).max() <= 4
    )


@pytest.mark.parametrize(
    ("rows", "columns", "size"), [(1024, 1024, 256), (512, 512, 256), (700, 900, 128), (256, 256, 256)]
)
def test_notebook_sampling_equals_skimage_without_anti_aliasing(rows: int, columns: int, size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (rows, columns), np.uint8)
    expected = resize(pixels, (size, size), mode="reflect", anti_aliasing=False) * 1020
    # quarter levels hold the notebook's own case exactly, any other to half a quarter
    tolerance = 1e-6 if rows == columns else 0.5 + 1e-3
    assert np.abs(notebook_sampling(pixels, size) - expected).max() <= tolerance


def test_raw_pixels_reach_the_network_exactly() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256), np.uint8)
    for sampling, expected in ((Sampling.AREA, pixels), (Sampling.NOTEBOOK, pixels.astype(np.uint16) * 4)):
        levels, _ = network_input(make_dicom(pixels, ExplicitVRLittleEndian), 256, sampling)
        assert levels.dtype == sampling.dtype
        assert np.array_equal(levels, expected)


def test_monochrome1_is_inverted() -> None:
    pixels = smooth_noise(512, 512)
    plain, _ = network_input(make_dicom(pixels), 128, Sampling.AREA)
    inverted, _ = network_input(
        make_dicom(pixels, PhotometricInterpretation="MONOCHROME1"), 128, Sampling.AREA
    )
    assert np.array_equal(inverted, 255 - plain)


def test_header_comes_from_the_first_bytes() -> None:
    data = make_dicom(smooth_noise(640, 480), ViewPosition="AP")
    assert header(data[:HEADER_BYTES]) == Header(640, 480, "AP")
    with pytest.raises(Refused):
        header(data[:400])


def test_an_unknown_view_is_left_empty() -> None:
    assert header(make_dicom(smooth_noise(64, 64), ViewPosition="JOHN DOE")).view == ""


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"SamplesPerPixel": 3}, "3 samples per pixel"),
        ({"PhotometricInterpretation": "RGB"}, "PhotometricInterpretation is RGB"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation is missing or unknown"),
        ({"PhotometricInterpretation": "DOE JOHN"}, "PhotometricInterpretation is missing or unknown"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"Rows": 0}, "0 rows x 256 columns"),
        ({"Columns": 60000}, "256 rows x 60000 columns"),
        ({"Rows": 200}, "the JPEG has another size than the header's 200 x 256"),
        ({"PixelData": None}, "no pixel data"),
    ],
)
def test_what_cannot_be_an_image_is_refused_with_what_was_found(
    elements: dict[str, object], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        network_input(make_dicom(smooth_noise(256, 256), **elements), 64, Sampling.AREA)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 100, "WindowWidth": 0},
        {"NumberOfFrames": 876543},
        {"WindowCenter": 876543, "WindowWidth": 9},
        {"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "UNKNOWN"},
        {"RescaleSlope": 1, "RescaleIntercept": "nan"},
        {"Rows": [256, 256]},
    ],
)
def test_damaged_header_values_are_refused_whatever_the_parser_raises(elements: dict[str, object]) -> None:
    data = make_dicom(smooth_noise(256, 256), **elements).replace(b"876543", b"number")
    with pytest.raises(Refused):
        network_input(data, 64, Sampling.AREA)


def test_want_of_memory_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("lobar.dicom.dcmread", no_memory)
    with pytest.raises(MemoryError):
        network_input(make_dicom(smooth_noise(64, 64)), 64, Sampling.AREA)


def test_a_window_is_applied_in_every_encoding() -> None:
    pixels, window = smooth_noise(256, 256), {"WindowCenter": 128, "WindowWidth": 100}
    (jpeg, _), (raw, _) = (
        network_input(make_dicom(pixels, syntax, **window), 256, Sampling.AREA)
        for syntax in (JPEGBaseline8Bit, ExplicitVRLittleEndian)
    )
    assert np.abs(jpeg.astype(int) - raw).mean() < 2
    assert np.abs(raw.astype(int) - pixels).mean() > 10


def test_an_orientation_inside_the_jpeg_does_not_turn_the_image() -> None:
    pixels = smooth_noise(256, 256)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(turned, "JPEG", quality=95, exif=exif)
    data = make_dicom(pixels, PixelData=encapsulate([turned.getvalue()]))
    levels, _ = network_input(data, 256, Sampling.AREA)
    assert np.abs(levels.astype(int) - pixels).mean() < 3


def test_files_that_are_no_dicom_are_refused() -> None:
    for data in (b"", b"patientId,x\n", b"\0" * 5000):
        with pytest.raises(Refused):
            network_input(data, 64, Sampling.AREA)


def test_every_truncation_is_refused() -> None:
    data = make_dicom(smooth_noise(256, 256))
    for end in range(0, len(data) - 1, len(data) // 40):
        with pytest.raises(Refused):
            network_input(data[:end], 64, Sampling.AREA)


def test_real_images_decode_like_full_decoding_and_averaging(real_data: Path) -> None:
    for path in sorted((real_data / "rsna_sample" / "stage_2_train_images").glob("*.dcm")):
        full = pydicom.dcmread(path).pixel_array
        levels, _ = network_input(path.read_bytes(), 256, Sampling.AREA)
        difference = np.abs(levels - area_mean(full, 256))
        assert difference.mean() < 0.3
        assert difference.max() <= 3


@pytest.mark.parametrize(
    "name", ["explicitLE", "implicitLE", "rle", "jpegls", "j2k_lossless", "mono1", "12in16"]
)
def test_one_real_image_in_other_encodings_is_the_same_picture(real_data: Path, name: str) -> None:
    original = (real_data / "rsna_sample/stage_2_train_images").glob("00436515*.dcm")
    expected, _ = network_input(next(original).read_bytes(), 256, Sampling.AREA)
    found, _ = network_input(
        (real_data / f"dicom_compat/rsna_00436515_{name}.dcm").read_bytes(), 256, Sampling.AREA
    )
    assert np.abs(found.astype(int) - expected).mean() < 1.5
