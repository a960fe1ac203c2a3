"""DICOM files of several kinds of radiograph, with the elements by which an archive files them."""

from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from lobar.core.boxes import Box
from lobar.inference.writers import source
from tests.conftest import make_dicom, smooth_noise

SET = ("SOPInstanceUID",)  # by make_dicom, which removes it if it is None
KINDS: dict[str, dict[str, object]] = {
    "cr": {"SOPClassUID": ComputedRadiographyImageStorage, "Modality": "CR"},
    "dx": {"SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX"},
    "secondary-capture": {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "CR"},
    "monochrome1": {"PhotometricInterpretation": "MONOCHROME1"},
    "non-square": {"PixelAspectRatio": [3, 2]},
    "anonymous": dict.fromkeys(source.REPEATED),
}


def radiograph(name: str = "x", rows: int = 96, columns: int = 64, **elements: object) -> bytes:
    """An image of a patient called `name`; the same arguments give the same UIDs. None removes an element."""
    uids = [generate_uid(entropy_srcs=[name, level]) for level in ("study", "series", "instance")]
    standard: dict[str, object] = {
        "SOPClassUID": SecondaryCaptureImageStorage, "Modality": "CR", "StudyInstanceUID": uids[0],
        "SeriesInstanceUID": uids[1], "SOPInstanceUID": uids[2], "StudyID": "S1", "AccessionNumber": "A1",
        "PatientID": name, "PatientName": f"{name}^Test", "PatientBirthDate": "19500102", "PatientSex": "F",
        "StudyDate": "20261101", "StudyTime": "101112", "ContentDate": "20261102", "ContentTime": "131415",
        "ReferringPhysicianName": "Ref^Erring",
    }  # fmt: skip
    chosen = {key: value for key, value in (standard | elements).items() if value is not None or key in SET}
    return make_dicom(smooth_noise(rows, columns), **chosen)


def boxes_of(report: Dataset) -> list[Box]:
    """The boxes in a structured report, read from its content items alone."""
    found = []
    (measurements,) = [
        item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]
    for group in measurements.ContentSequence:
        items = {item.ConceptNameCodeSequence[0].CodeValue: item for item in group.ContentSequence}
        if "111030" not in items:  # Image Region
            continue
        points = [int(value) for value in items["111030"].GraphicData]
        corners = [*zip(points[::2], points[1::2], strict=True)]
        (left, top), (right, bottom) = corners[0], corners[2]
        assert corners == [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        percent = float(items["111012"].MeasuredValueSequence[0].NumericValue)
        found.append(Box(left, top, right - left, bottom - top, round(percent / 100, 6)))
    return found
