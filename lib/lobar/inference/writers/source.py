"""The elements of an image's header that its structured report refers to or repeats.

They go from the image into its report and nowhere else: messages name elements, never their values.
"""

import io
import re
from contextlib import suppress
from dataclasses import dataclass

from pydicom import Dataset, config, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID
from pydicom.valuerep import DA, TM, validate_value

from lobar.imaging.elements import RejectedImage, as_rejection, described, values

REFERENCED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# by which an archive files the report next to its image
REPEATED = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
DATES = ("ContentDate", "AcquisitionDate", "SeriesDate", "StudyDate")
UNDATED = ("19000101", "000000")
SEXES = ("M", "F", "O")
UNDECODABLE = "\ufffd"  # what pydicom makes of bytes that the file's character set does not have


@dataclass(frozen=True)
class Source:
    """What a report takes from its image.

    elements: REFERENCED and REPEATED, each with a value that the standard allows, or empty.
    date, time: when the image was made, or UNDATED.
    unusable: the REPEATED elements that are left empty because the image has a value of no use there.
    """

    elements: Dataset
    date: str
    time: str
    unusable: tuple[str, ...]


def read(data: bytes) -> Source:
    """The elements of a DICOM file, without its pixels.

    Raises RejectedImage if the image cannot be referred to, or could be filed under another patient.
    """
    tags = [*REFERENCED, *REPEATED, *DATES, *map(_time_of, DATES)]
    with as_rejection("its header cannot be read"):
        header = dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=[*tags])
    elements = Dataset()
    for keyword in REFERENCED:
        setattr(elements, keyword, _uid(header, keyword))
    unusable = []
    for keyword in REPEATED:
        try:
            value = _text(header, keyword)
        except RejectedImage:
            if keyword == "PatientID":
                raise
            value = ""
            unusable.append(described(keyword))
        setattr(elements, keyword, value)
    return Source(elements, *_made(header), tuple(unusable))


def _uid(header: Dataset, keyword: str) -> UID:
    uid = UID(_text(header, keyword))
    if not uid:
        raise RejectedImage(f"{described(keyword)} is missing: a report cannot refer to the image")
    return uid


def _text(header: Dataset, keyword: str) -> str:
    """The value of an element of one text. Raises RejectedImage if the standard does not allow it."""
    found = values(header, keyword)
    if not found:
        return ""
    text = str(found[0]).strip()
    vr = dictionary_VR(keyword)
    try:
        validate_value(vr, text, config.RAISE)
        valid = len(found) == 1 and UNDECODABLE not in text and (keyword != "PatientSex" or text in SEXES)
        if text and vr == "DA":
            DA(text)
        if text and vr == "TM":
            TM(text)
    except ValueError:
        valid = False
    if not valid:
        raise RejectedImage(f"{described(keyword)} has a value that the standard does not allow")
    return text


def _made(header: Dataset) -> tuple[str, str]:
    """Date and time of the image, from the first of DATES that it has."""
    for keyword in DATES:
        date, time = "", ""
        with suppress(RejectedImage):
            date = _text(header, keyword)
        with suppress(RejectedImage):
            time = _text(header, _time_of(keyword))
        if date:
            return date, time or UNDATED[1]
    return UNDATED


def _time_of(keyword: str) -> str:
    return re.sub("Date$", "Time", keyword)
