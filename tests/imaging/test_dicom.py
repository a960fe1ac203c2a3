import io
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from skimage.transform import resize

from lobar.imaging.dicom import HEADER_BYTES, Header, RejectedImage, header, network_input, notebook_sampling
from lobar.imaging.sampling import Sampling
from tests.conftest import make_dicom, smooth_noise


def area_mean(pixels: np.ndarray, size: int) -> np.ndarray:
    step = pixels.shape[0] // size
    return pixels.reshape(size, step, size, step).mean(axis=(1, 3))


def test_area_sampling_is_the_mean_over_each_pixels_area() -> None:
    data = make_dicom(smooth_noise(1024, 1024))
    full = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).pixel_array
    levels, read_header = network_input(data, 256, Sampling.AREA)
    assert levels.dtype == np.uint8
    assert read_header == Header(1024, 1024, "PA")
    assert np.abs(levels - area_mean(full, 256)).max() <= 2


def test_area_sampling_of_a_size_that_is_no_jpeg_scale() -> None:
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
    # quarter levels are exact in the notebook's case, else rounded to half a quarter
    tolerance = 1e-6 if rows == columns else 0.5 + 1e-3
    assert np.abs(notebook_sampling(pixels, size) - expected).max() <= tolerance


def test_raw_pixels_are_unchanged() -> None:
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


def test_the_header_is_read_from_the_first_bytes() -> None:
    data = make_dicom(smooth_noise(640, 480), ViewPosition="AP")
    assert header(data[:HEADER_BYTES]) == Header(640, 480, "AP")
    with pytest.raises(RejectedImage):
        header(data[:400])


def test_an_unknown_view_becomes_empty() -> None:
    assert header(make_dicom(smooth_noise(64, 64), ViewPosition="JOHN DOE")).view == ""


@pytest.mark.parametrize("part", ["CHEST", "Thorax", "CHEST_TO_ABDOMEN", "LUNG", ""])
@pytest.mark.parametrize("modality", ["CR", "DX", ""])
def test_radiographs_of_chests_are_read(part: str, modality: str) -> None:
    data = make_dicom(smooth_noise(64, 64), BodyPartExamined=part, Modality=modality)
    assert header(data) == network_input(data, 64, Sampling.AREA)[1] == Header(64, 64, "PA")


def test_an_odd_number_of_raw_pixels_is_padded_by_a_byte() -> None:
    pixels = smooth_noise(65, 65)
    data = make_dicom(pixels, ExplicitVRLittleEndian, PixelData=pixels.tobytes() + b"\0")
    assert np.array_equal(network_input(data, 65, Sampling.AREA)[0], pixels)


def test_an_exif_orientation_does_not_rotate_the_image() -> None:
    pixels = smooth_noise(256, 256)
    rotated = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(rotated, "JPEG", quality=95, exif=exif)
    data = make_dicom(pixels, PixelData=encapsulate([rotated.getvalue()]))
    levels, _ = network_input(data, 256, Sampling.AREA)
    assert np.abs(levels.astype(int) - pixels).mean() < 3


def test_files_that_need_another_decoder_go_to_the_sandbox() -> None:
    calls: list[tuple[int, Sampling]] = []

    def sandbox(data: bytes, size: int, sampling: Sampling) -> tuple[np.ndarray, Header]:
        calls.append((size, sampling))
        return network_input(data, size, sampling)

    pixels = smooth_noise(64, 64)
    for syntax in (JPEGBaseline8Bit, ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        network_input(make_dicom(pixels, syntax), 64, Sampling.AREA, sandbox)
    assert not calls
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        levels, _ = network_input(make_dicom(pixels, syntax), 64, Sampling.AREA, sandbox)
        assert np.array_equal(levels, pixels)
    assert calls == [(64, Sampling.AREA)] * 3


def test_real_images_decode_like_full_decoding_and_averaging(real_data: Path) -> None:
    for path in sorted((real_data / "rsna_sample" / "stage_2_train_images").glob("*.dcm")):
        full = pydicom.dcmread(path).pixel_array
        levels, _ = network_input(path.read_bytes(), 256, Sampling.AREA)
        difference = np.abs(levels - area_mean(full, 256))
        assert difference.mean() < 0.3
        assert difference.max() <= 3
