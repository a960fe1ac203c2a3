"""Unusable files are rejected with the reason, whatever they contain; nothing else is raised."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from lobar.imaging.dicom import Header, RejectedImage, header, network_input
from lobar.imaging.sampling import Sampling
from lobar.imaging.sandbox import WorkerLostError
from tests.conftest import make_dicom, smooth_noise

NO_CHEST = "only chests are supported"


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"SamplesPerPixel": 3}, "3 samples per pixel"),
        ({"PhotometricInterpretation": "RGB"}, "PhotometricInterpretation is RGB"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation is missing or unknown"),
        ({"PhotometricInterpretation": "DOE JOHN"}, "PhotometricInterpretation is missing or unknown"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"BitsAllocated": 1}, "1 bits per pixel; only 8 and 16 are supported"),
        ({"BitsAllocated": 32}, "32 bits per pixel; only 8 and 16 are supported"),
        ({"BitsAllocated": None}, "0 bits per pixel; only 8 and 16 are supported"),
        ({"Rows": 0}, "0 rows x 256 columns; 1 to 16384 of each are supported"),
        ({"Columns": 60000}, "256 rows x 60000 columns"),
        ({"Rows": 8192, "Columns": 8192}, "8192 rows x 8192 columns; .* at most 33,554,432 pixels"),
        ({"Rows": None}, "it contains no image, or the file is truncated"),
        ({"Rows": 200}, "the JPEG has 256 rows x 256 columns; the DICOM header says 200 x 256"),
        ({"PixelData": None}, "no pixel data"),
        (
            {"PixelData": b"\xfe\xff\x00\xe0" + bytes(4) + b"no item!"},
            "damaged pixel data: no encapsulated frame",
        ),
        (
            {"PixelData": encapsulate([b"not an image \xff\xd9"])},
            "damaged JPEG: it has no readable frame header",
        ),
        ({"PixelData": encapsulate([b"\xff\xd8\xff\xd9"])}, "damaged JPEG: it has no readable frame header"),
        (
            {"TransferSyntaxUID": "1.2.840.10008.1.2.4.100"},
            "transfer syntax is MPEG2 .*; it is not supported",
        ),
        ({"Modality": "CT"}, r"Modality is CT; only radiographs \(CR, DX, RG, OT\) are supported"),
        ({"Modality": "DOE JOHN"}, "Modality is unknown; only radiographs"),
        ({"BodyPartExamined": "HAND"}, NO_CHEST),
        ({"BodyPartExamined": "RIBCAGE"}, NO_CHEST),
        ({"BodyPartExamined": "DOE^JOHN"}, NO_CHEST),
    ],
)
def test_unusable_headers_are_rejected_with_the_reason(elements: dict[str, object], message: str) -> None:
    with pytest.raises(RejectedImage, match=message) as rejected:
        network_input(make_dicom(smooth_noise(256, 256), **elements), 64, Sampling.AREA)
    assert "DOE" not in str(rejected.value)


@pytest.mark.parametrize("named", [b"1.2.840.10008.1.2.4.99", b"1.2.826.0.1.3680043.99", b""])
def test_an_unknown_or_missing_transfer_syntax_is_rejected(named: bytes) -> None:
    data = make_dicom(smooth_noise(64, 64)).replace(b"1.2.840.10008.1.2.4.50", named.ljust(22, b"\0"))
    for read in (header, lambda data: network_input(data, 64, Sampling.AREA)):
        with pytest.raises(RejectedImage, match="transfer syntax is missing or unknown; it is not supported"):
            read(data)


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, "JPEG", **options)
    return body.getvalue()


def test_a_jpeg_may_have_any_segments_before_its_frame_header() -> None:
    pixels = smooth_noise(256, 256)
    frame = jpeg(pixels, quality=95, comment=b"\xff\xc0 is not a marker here", dpi=(72, 72))
    filled = frame[:2] + b"\xff\xff" + frame[2:]
    for variant in (frame, filled):
        levels, _ = network_input(make_dicom(pixels, PixelData=encapsulate([variant])), 256, Sampling.AREA)
        assert np.abs(levels.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_frames_of_another_size_are_rejected_in_other_encodings(syntax: UID) -> None:
    for size in (32, 128):
        with pytest.raises(RejectedImage, match=r"the DICOM header says|cannot be decoded"):
            network_input(make_dicom(smooth_noise(64, 64), syntax, Rows=size), 32, Sampling.AREA)


def png() -> bytes:
    """A PNG, which OpenCV would decode too, with a JPEG end marker."""
    return cv2.imencode(".png", smooth_noise(256, 256))[1].tobytes() + b"\xff\xd9"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (jpeg(np.stack([smooth_noise(256, 256)] * 3, axis=-1)), "in colour or not baseline"),
        (jpeg(smooth_noise(256, 256), progressive=True), "in colour or not baseline"),
        (jpeg(smooth_noise(256, 256))[:-2], "truncated JPEG: its end marker is missing"),
        (png(), "damaged JPEG: it has no readable frame header"),
        # a frame header that declares four gigabytes
        (
            jpeg(smooth_noise(256, 256)).replace(b"\x08\x01\x00\x01\x00", b"\x08\xff\xdc\xff\xdc"),
            "65500 rows x 65500 columns",
        ),
    ],
    ids=["colour", "progressive", "without its end", "another format", "huge"],
)
def test_only_a_baseline_jpeg_of_the_right_size_is_decoded(frame: bytes, message: str) -> None:
    with pytest.raises(RejectedImage, match=message):
        network_input(make_dicom(smooth_noise(256, 256), PixelData=encapsulate([frame])), 64, Sampling.AREA)


@pytest.mark.parametrize("length", [0, 100, 256 * 256 - 2, 2 * 256 * 256])
def test_raw_pixels_of_the_wrong_length_are_rejected(length: int) -> None:
    pixels = smooth_noise(256, 256)
    data = make_dicom(pixels, ExplicitVRLittleEndian, PixelData=(pixels.tobytes() * 2)[:length])
    with pytest.raises(
        RejectedImage, match=f"{length} bytes of pixel data; expected 65536" if length else "no pix"
    ):
        network_input(data, 64, Sampling.AREA)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, ExplicitVRLittleEndian, RLELossless])
def test_an_image_of_one_grey_level_is_rejected(syntax: UID, level: int) -> None:
    with pytest.raises(RejectedImage, match="all pixels have the same value"):
        network_input(make_dicom(np.full((64, 64), level, np.uint8), syntax), 64, Sampling.AREA)


def test_a_deflated_file_is_rejected_before_it_expands() -> None:
    deflated = Path(str(get_testdata_file("image_dfl.dcm"))).read_bytes()
    for read in (header, lambda data: network_input(data, 64, Sampling.AREA)):
        with pytest.raises(RejectedImage, match="deflated: a small file could expand to any size"):
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
def test_damaged_header_values_are_rejected_whatever_the_parser_raises(elements: dict[str, object]) -> None:
    data = make_dicom(smooth_noise(256, 256), **elements).replace(b"876543", b"number")
    with pytest.raises(RejectedImage):
        network_input(data, 64, Sampling.AREA)


@pytest.mark.parametrize("function", ["lobar.imaging.dicom.dcmread", "lobar.imaging.pixels.cv2.imdecode"])
def test_lack_of_memory_is_not_a_rejection(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = cv2.error("out of memory")
    error.code = cv2.Error.StsNoMem  # as OpenCV sets it

    def no_memory(*_: object, **options: object) -> None:
        raise error if "cv2" in function else MemoryError

    monkeypatch.setattr(function, no_memory)
    with pytest.raises(MemoryError):
        network_input(make_dicom(smooth_noise(64, 64)), 64, Sampling.AREA)


def test_files_that_are_not_dicom_are_rejected() -> None:
    whole = make_dicom(smooth_noise(64, 64))
    for data in (b"", b"patientId,x\n", b"\0" * 5000, whole[128:], whole[132:], whole[1:]):
        for read in (header, lambda data: network_input(data, 64, Sampling.AREA)):
            with pytest.raises(RejectedImage, match=r"not a DICOM file|damaged DICOM"):
                read(data)


@pytest.mark.parametrize(
    "syntax",
    [JPEGBaseline8Bit, ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless],
    ids=lambda syntax: syntax.name,
)
def test_every_truncation_is_rejected(syntax: UID) -> None:
    data = make_dicom(smooth_noise(64, 64), syntax)
    assert network_input(data, 64, Sampling.AREA)
    # the last four bytes of encapsulated pixels, the delimiter's length, may be missing
    for end in range(0, len(data) - 4 * syntax.is_encapsulated, 10):
        with pytest.raises(RejectedImage):
            network_input(data[:end], 64, Sampling.AREA)


READABLE = {
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
}  # the others are MR, CT, reports, in colour, …


def test_pydicoms_unusual_and_broken_files_are_read_or_rejected() -> None:
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        try:
            network_input(path.read_bytes(), 32, Sampling.AREA)
            read = True
        except RejectedImage:
            read = False
        assert read == (path.name in READABLE), path.name


def test_a_lost_decoder_rejects_the_file() -> None:
    def sandbox(*_: object) -> tuple[np.ndarray, Header]:
        raise WorkerLostError("took more than 60 seconds")

    with pytest.raises(RejectedImage, match="its decoder took more than 60 seconds"):
        network_input(make_dicom(smooth_noise(64, 64), RLELossless), 64, Sampling.AREA, sandbox)
