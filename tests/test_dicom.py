import io
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from skimage.transform import resize

from lobar.apart import LostError
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


NO_CHEST = "only chests are read"


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"SamplesPerPixel": 3}, "3 samples per pixel"),
        ({"PhotometricInterpretation": "RGB"}, "PhotometricInterpretation is RGB"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation is missing or unknown"),
        ({"PhotometricInterpretation": "DOE JOHN"}, "PhotometricInterpretation is missing or unknown"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"BitsAllocated": 1}, "1 bits a pixel; 8 and 16 are read"),
        ({"BitsAllocated": 32}, "32 bits a pixel; 8 and 16 are read"),
        ({"BitsAllocated": None}, "0 bits a pixel; 8 and 16 are read"),
        ({"Rows": 0}, "0 rows x 256 columns; from 1 to 16384 are read"),
        ({"Columns": 60000}, "256 rows x 60000 columns"),
        ({"Rows": 8192, "Columns": 8192}, "8192 rows x 8192 columns; .* 33,554,432 pixels in all"),
        ({"Rows": None}, "it holds no image, or ends before it does"),
        ({"Rows": 200}, "the JPEG has another size than the header's 200 x 256: 256 x 256"),
        ({"PixelData": None}, "no pixel data"),
        (
            {"PixelData": b"\xfe\xff\x00\xe0" + bytes(4) + b"no item!"},
            "damaged pixel data: no encapsulated frame",
        ),
        ({"PixelData": encapsulate([b"no image \xff\xd9"])}, "damaged JPEG: it has no header"),
        ({"PixelData": encapsulate([b"\xff\xd8\xff\xd9"])}, "damaged JPEG: it has no header"),
        ({"TransferSyntaxUID": "1.2.840.10008.1.2.4.100"}, "transfer syntax is MPEG2 .*, which is not read"),
        ({"Modality": "CT"}, r"Modality is CT; radiographs \(CR, DX, RG, OT\) are read"),
        ({"Modality": "DOE JOHN"}, "Modality is another than these; radiographs"),
        ({"BodyPartExamined": "HAND"}, NO_CHEST),
        ({"BodyPartExamined": "RIBCAGE"}, NO_CHEST),
        ({"BodyPartExamined": "DOE^JOHN"}, NO_CHEST),
    ],
)
def test_what_cannot_be_an_image_is_refused_with_what_was_found(
    elements: dict[str, object], said: str
) -> None:
    with pytest.raises(Refused, match=said) as refused:
        network_input(make_dicom(smooth_noise(256, 256), **elements), 64, Sampling.AREA)
    assert "DOE" not in str(refused.value)


@pytest.mark.parametrize("named", [b"1.2.840.10008.1.2.4.99", b"1.2.826.0.1.3680043.99", b""])
def test_an_unknown_or_missing_transfer_syntax_is_refused(named: bytes) -> None:
    data = make_dicom(smooth_noise(64, 64)).replace(b"1.2.840.10008.1.2.4.50", named.ljust(22, b"\0"))
    for read in (header, lambda data: network_input(data, 64, Sampling.AREA)):
        with pytest.raises(Refused, match="transfer syntax is missing or unknown, which is not read"):
            read(data)


@pytest.mark.parametrize("part", ["CHEST", "Thorax", "CHEST_TO_ABDOMEN", "LUNG", ""])
@pytest.mark.parametrize("modality", ["CR", "DX", ""])
def test_radiographs_of_chests_are_read(part: str, modality: str) -> None:
    data = make_dicom(smooth_noise(64, 64), BodyPartExamined=part, Modality=modality)
    assert header(data) == network_input(data, 64, Sampling.AREA)[1] == Header(64, 64, "PA")


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG", **options)
    return body.getvalue()


def test_a_frame_may_have_any_segments_before_its_header() -> None:
    pixels = smooth_noise(256, 256)
    frame = jpeg(pixels, quality=95, comment=b"\xff\xc0 is no marker here", dpi=(72, 72))
    filled = frame[:2] + b"\xff\xff" + frame[2:]
    for each in (frame, filled):
        levels, _ = network_input(make_dicom(pixels, PixelData=encapsulate([each])), 256, Sampling.AREA)
        assert np.abs(levels.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_frames_of_another_size_are_refused_in_other_encodings_too(syntax: UID) -> None:
    for size in (32, 128):
        with pytest.raises(Refused, match=r"another size than the header's|cannot be decoded"):
            network_input(make_dicom(smooth_noise(64, 64), syntax, Rows=size), 32, Sampling.AREA)


def png() -> bytes:
    """What OpenCV would decode as readily, with an end marker behind it."""
    return cv2.imencode(".png", smooth_noise(256, 256))[1].tobytes() + b"\xff\xd9"


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (jpeg(np.stack([smooth_noise(256, 256)] * 3, axis=-1)), "in colour or not baseline"),
        (jpeg(smooth_noise(256, 256), progressive=True), "in colour or not baseline"),
        (jpeg(smooth_noise(256, 256))[:-2], "truncated JPEG: its end marker is missing"),
        (png(), "damaged JPEG: it has no header"),
        # a header alone, which asks for four gigabytes
        (
            jpeg(smooth_noise(256, 256)).replace(b"\x08\x01\x00\x01\x00", b"\x08\xff\xdc\xff\xdc"),
            "65500 x 65500",
        ),
    ],
    ids=["colour", "progressive", "without its end", "another format", "huge"],
)
def test_a_frame_that_is_no_baseline_jpeg_of_this_size_is_not_decoded(frame: bytes, said: str) -> None:
    with pytest.raises(Refused, match=said):
        network_input(make_dicom(smooth_noise(256, 256), PixelData=encapsulate([frame])), 64, Sampling.AREA)


@pytest.mark.parametrize("length", [0, 100, 256 * 256 - 2, 256 * 256 + 2, 2 * 256 * 256])
def test_raw_pixels_of_the_wrong_length_are_refused(length: int) -> None:
    pixels = smooth_noise(256, 256)
    data = make_dicom(pixels, ExplicitVRLittleEndian, PixelData=(pixels.tobytes() * 2)[:length])
    with pytest.raises(
        Refused, match=f"{length} bytes of pixel data; 65536 are needed" if length else "no pix"
    ):
        network_input(data, 64, Sampling.AREA)


def test_an_odd_number_of_raw_pixels_has_a_byte_of_padding() -> None:
    pixels = smooth_noise(65, 65)
    data = make_dicom(pixels, ExplicitVRLittleEndian, PixelData=pixels.tobytes() + b"\0")
    assert np.array_equal(network_input(data, 65, Sampling.AREA)[0], pixels)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, ExplicitVRLittleEndian, RLELossless])
def test_an_image_of_one_level_is_none(syntax: UID, level: int) -> None:
    with pytest.raises(Refused, match="every pixel is the same: there is no image"):
        network_input(make_dicom(np.full((64, 64), level, np.uint8), syntax), 64, Sampling.AREA)


def test_a_deflated_file_is_refused_before_it_unfolds() -> None:
    deflated = Path(str(get_testdata_file("image_dfl.dcm"))).read_bytes()
    for read in (header, lambda data: network_input(data, 64, Sampling.AREA)):
        with pytest.raises(Refused, match="deflated: a small file could unfold to any size"):
            read(deflated)


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


@pytest.mark.parametrize("place", ["lobar.dicom.dcmread", "lobar.pixels.cv2.imdecode"])
def test_want_of_memory_is_not_the_files_fault(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = cv2.error("out of memory")
    error.code = cv2.Error.StsNoMem  # as OpenCV sets it

    def no_memory(*_: object, **options: object) -> None:
        raise error if "cv2" in place else MemoryError

    monkeypatch.setattr(place, no_memory)
    with pytest.raises(MemoryError):
        network_input(make_dicom(smooth_noise(64, 64)), 64, Sampling.AREA)


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
    whole = make_dicom(smooth_noise(64, 64))
    for data in (b"", b"patientId,x\n", b"\0" * 5000, whole[128:], whole[132:], whole[1:]):
        for read in (header, lambda data: network_input(data, 64, Sampling.AREA)):
            with pytest.raises(Refused, match=r"not a DICOM file|damaged DICOM"):
                read(data)


@pytest.mark.parametrize(
    "syntax",
    [JPEGBaseline8Bit, ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless],
    ids=lambda syntax: syntax.name,
)
def test_every_truncation_is_refused(syntax: UID) -> None:
    data = make_dicom(smooth_noise(64, 64), syntax)
    assert network_input(data, 64, Sampling.AREA)
    # nothing is lost with the last four bytes, the length of the mark that ends encapsulated pixels
    for end in range(0, len(data) - 4 * syntax.is_encapsulated, 10):
        with pytest.raises(Refused):
            network_input(data[:end], 64, Sampling.AREA)


def scope_of(name: str) -> str:
    """What of pydicom's own files is read; their kinds are MR, CT, reports and the like, or in colour."""
    return {"JPEGLSNearLossless_08.dcm": "read", "JPEGLSNearLossless_16.dcm": "read"}.get(name, "refused")


def test_pydicoms_own_odd_and_broken_files_are_read_or_refused() -> None:
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        try:
            network_input(path.read_bytes(), 32, Sampling.AREA)
            found = "read"
        except Refused:
            found = "refused"
        assert found == scope_of(path.name), path.name


def test_a_file_that_needs_another_decoder_goes_apart() -> None:
    asked: list[tuple[int, Sampling]] = []

    def apart(data: bytes, size: int, sampling: Sampling) -> tuple[np.ndarray, Header]:
        asked.append((size, sampling))
        return network_input(data, size, sampling)

    pixels = smooth_noise(64, 64)
    for syntax in (JPEGBaseline8Bit, ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        network_input(make_dicom(pixels, syntax), 64, Sampling.AREA, apart)
    assert not asked
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        levels, _ = network_input(make_dicom(pixels, syntax), 64, Sampling.AREA, apart)
        assert np.array_equal(levels, pixels)
    assert asked == [(64, Sampling.AREA)] * 3


def test_a_decoder_that_gives_nothing_refuses_the_file() -> None:
    def apart(*_: object) -> tuple[np.ndarray, Header]:
        raise LostError("takes more than 60 seconds")

    with pytest.raises(Refused, match="its decoder takes more than 60 seconds"):
        network_input(make_dicom(smooth_noise(64, 64), RLELossless), 64, Sampling.AREA, apart)


def test_real_images_decode_like_full_decoding_and_averaging(real_data: Path) -> None:
    for path in sorted((real_data / "rsna_sample" / "stage_2_train_images").glob("*.dcm")):
        full = pydicom.dcmread(path).pixel_array
        levels, _ = network_input(path.read_bytes(), 256, Sampling.AREA)
        difference = np.abs(levels - area_mean(full, 256))
        assert difference.mean() < 0.3
        assert difference.max() <= 3
