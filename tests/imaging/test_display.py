"""The optional elements of a header, however they are written: what each gives, in every job."""

import io
import re
import struct
from collections.abc import Mapping

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lobar.imaging.dicom import RejectedImage, header, network_input
from lobar.imaging.sampling import Sampling
from tests.conftest import make_dicom, smooth_noise

TWELVE = np.clip(smooth_noise(64, 64).astype(np.uint16) * 16 + 5, 5, 4085)
Written = tuple[str, bytes]  # a VR and the bytes of a value
# every optional element that the reader looks at: the VR, a value, and what must be absent as well if it is
ELEMENTS: dict[str, tuple[str, str | int, tuple[str, ...]]] = {
    "WindowCenter": ("DS", "2000", ("WindowWidth",)),
    "WindowWidth": ("DS", "1001", ("WindowCenter",)),
    "VOILUTFunction": ("CS", "LINEAR", ()),
    "RescaleSlope": ("DS", "2", ("RescaleIntercept",)),
    "RescaleIntercept": ("DS", "-100", ("RescaleSlope",)),
    "PixelPaddingValue": ("US", 2005, ("PixelPaddingRangeLimit",)),
    "PixelPaddingRangeLimit": ("US", 2100, ()),
    "BitsStored": ("US", 12, ()),
    "HighBit": ("US", 11, ()),
    "PixelRepresentation": ("US", 0, ()),
    "PresentationLUTShape": ("CS", "IDENTITY", ()),
    "SamplesPerPixel": ("US", 1, ()),
    "NumberOfFrames": ("IS", "1", ()),
    "ViewPosition": ("CS", "PA", ()),
    "Modality": ("CS", "CR", ()),
    "BodyPartExamined": ("CS", "CHEST", ()),
}
NUMBERS = [name for name, (vr, _, _) in ELEMENTS.items() if vr != "CS"]
WHOLE = [name for name, (vr, _, _) in ELEMENTS.items() if vr in ("US", "IS")]


def usual(name: str) -> Written:
    vr, value, _ = ELEMENTS[name]
    return vr, struct.pack("<H", value) if isinstance(value, int) else value.encode()


def file(changes: Mapping[str, Written | None]) -> bytes:
    """A file with all the elements, those of `changes` written otherwise or left out."""
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(TWELVE, ExplicitVRLittleEndian)))
    for name, written in ({name: usual(name) for name in ELEMENTS} | changes).items():
        tag = Tag(name)
        if tag in dataset:
            del dataset[tag]
        if written:
            vr, body = written
            body += b"\0" * (len(body) % 2) if vr != "US" else b""
            dataset[tag] = RawDataElement(tag, vr, len(body), body, 0, False, True)
    body = io.BytesIO()
    dataset.save_as(body)
    return body.getvalue()


def outcome(data: bytes) -> bytes | str:
    """The levels and the view, or the reason of the rejection, which the header alone has to give as well."""
    try:
        levels, read = network_input(data, 64, Sampling.AREA)
    except RejectedImage as rejected:
        with pytest.raises(RejectedImage, match=re.escape(str(rejected))):
            header(data)
        assert not re.search(r"Error|Exception", str(rejected)), "a Python class name"
        return str(rejected)
    assert header(data) == read
    return levels.tobytes() + read.view.encode()


USUAL = outcome(file({}))


def without(name: str) -> bytes | str:
    """As if the element and those that need it were not there; their defaults are those of the standard."""
    return outcome(file(dict.fromkeys((name, *ELEMENTS[name][2]))))


def test_the_usual_file_is_read_and_the_elements_that_change_it_do() -> None:
    assert isinstance(USUAL, bytes)
    changing = {"WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"}
    changing |= {"PixelPaddingRangeLimit", "ViewPosition"}
    assert {name for name in ELEMENTS if without(name) != USUAL} == changing


@pytest.mark.parametrize("name", ELEMENTS)
def test_an_absent_element(name: str) -> None:
    found = outcome(file({name: None}))
    assert isinstance(found, bytes)
    assert found == without(name)


@pytest.mark.parametrize("name", ELEMENTS)
def test_an_empty_element_counts_as_absent(name: str) -> None:
    vr = ELEMENTS[name][0]
    for empty in (b"",) if vr == "US" else (b"", b"  "):  # in US, two spaces are a number
        assert outcome(file({name: (vr, empty)})) == without(name)


@pytest.mark.parametrize("name", ELEMENTS)
def test_several_values(name: str) -> None:
    """The first one is used, except for whole numbers, which are one by their meaning."""
    vr, body = usual(name)
    several = body * 2 if vr == "US" else body + b"\\" + (b"1" if name in NUMBERS else b"OTHER")
    expected = f"{described(name)} has 2 values; one is expected" if name in WHOLE else USUAL
    assert outcome(file({name: (vr, several)})) == expected


@pytest.mark.parametrize("name", ["WindowCenter", "WindowWidth"])
def test_the_first_complete_window_is_used(name: str) -> None:
    pairs = {"WindowCenter": ("DS", b"7\\2000"), "WindowWidth": ("DS", b"9\\1001")}
    pairs[name] = ("DS", pairs[name][1].replace(b"7", b"").replace(b"9", b""))
    assert outcome(file(pairs)) == USUAL


@pytest.mark.parametrize("name", ELEMENTS)
def test_another_vr_with_text(name: str) -> None:
    vr_usual, value, _ = ELEMENTS[name]
    # pydicom takes the bytes of UN as those of the element's own VR
    for vr in {"LO", "SH", "UT", "UN", "OB"} - ({"UN"} if vr_usual == "US" else set()):
        assert outcome(file({name: (vr, str(value).encode())})) == USUAL, vr


@pytest.mark.parametrize("name", NUMBERS)
def test_another_vr_with_a_number(name: str) -> None:
    value = int(ELEMENTS[name][1])
    codes = {"US": "<H", "SS": "<h", "SL": "<l", "FD": "<d"}
    for vr in {*codes, "IS", "DS"} - ({"US"} if value < 0 else set()):  # US has no negative numbers
        body = struct.pack(codes[vr], value) if vr in codes else str(value).encode()
        assert outcome(file({name: (vr, body)})) == USUAL, vr


@pytest.mark.parametrize("body", [b"number", b"1e999", b"nan", b"1,5"])
@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_not_a_number_is_rejected_by_name(name: str, body: bytes) -> None:
    for vr in {"LO", ELEMENTS[name][0]} - {"US"}:
        found = outcome(file({name: (vr, body)}))
        assert str(found).startswith(described(name))
        assert re.search(r"cannot be read|is not a (finite )?number", str(found))


@pytest.mark.parametrize("name", [name for name in NUMBERS if ELEMENTS[name][0] == "US"])
def test_a_number_of_the_wrong_length_is_rejected_by_name(name: str) -> None:
    assert outcome(file({name: ("US", b"\1\2\3\4\5")})) == f"{described(name)} cannot be read"


@pytest.mark.parametrize("name", WHOLE)
def test_a_fraction_is_rejected_by_name(name: str) -> None:
    found = outcome(file({name: ("FD", struct.pack("<d", 1.5))}))
    assert found == f"{described(name)} is 1.5; a whole number is expected"


@pytest.mark.parametrize("vr", ["CS", "LO", "OB"])
@pytest.mark.parametrize("name", [name for name in ELEMENTS if name not in NUMBERS])
def test_an_unknown_text_is_rejected_and_not_quoted(name: str, vr: str) -> None:
    found = outcome(file({name: (vr, b"DOE^JOHN")}))
    if name == "ViewPosition":
        assert found == without(name)
    else:
        assert name in str(found)
        assert "DOE" not in str(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WindowWidth": ("DS", b"0")}, "WindowWidth (0028,1051) is 0; a width above 0 is expected"),
        ({"WindowWidth": ("DS", b"-5")}, "WindowWidth (0028,1051) is -5; a width above 0 is expected"),
        ({"RescaleSlope": ("DS", b"0")}, "RescaleSlope (0028,1053) is 0"),
        ({"BitsStored": ("US", b"\0\0")}, "BitsStored (0028,0101) is 0; 1 to 16 are possible"),
        ({"BitsStored": ("US", b"\x11\0")}, "BitsStored (0028,0101) is 17; 1 to 16 are possible"),
        ({"HighBit": ("US", b"\x0a\0")}, "HighBit (0028,0102) is 10; 11 to 15 are possible with 12"),
        ({"HighBit": ("US", b"\x10\0")}, "HighBit (0028,0102) is 16; 11 to 15 are possible with 12"),
        ({"PixelRepresentation": ("US", b"\2\0")}, "PixelRepresentation (0028,0103) is 2; 0 and 1 are"),
        (
            {"PresentationLUTShape": ("CS", b"INVERSE")},
            "PresentationLUTShape (2050,0020) is INVERSE; MONOCHROME2 needs IDENTITY",
        ),
        (
            {"PhotometricInterpretation": ("CS", b"MONOCHROME1")},
            "PresentationLUTShape (2050,0020) is IDENTITY; MONOCHROME1 needs INVERSE",
        ),
        ({"PixelData": None}, "no pixel data"),
    ],
)  # fmt: skip
def test_contradictory_values_are_rejected_by_name(changes: dict[str, Written | None], message: str) -> None:
    assert str(outcome(file(changes))).startswith(message)


def test_a_function_or_padding_limit_that_is_not_used_is_not_looked_at() -> None:
    function = {"WindowWidth": None, "VOILUTFunction": ("CS", b"OTHER")}
    assert outcome(file(function)) == without("WindowWidth")
    limit = {"PixelPaddingValue": None, "PixelPaddingRangeLimit": ("LO", b"text")}
    assert outcome(file(limit)) == without("PixelPaddingValue")


def test_a_header_that_ends_between_two_elements_is_not_taken_for_a_whole_one() -> None:
    data = file({})
    at = data.index(b"\x28\x00\x50\x10")  # the window's center and all that follows
    with pytest.raises(RejectedImage, match="no pixel data"):
        header(data[:at])


def described(name: str) -> str:
    tag = Tag(name)
    return f"{name} ({tag.group:04X},{tag.element:04X})"


LUTS = ["ModalityLUTSequence", "VOILUTSequence"]
LUT_12 = np.arange(4096)[::-1] // 2


def lut_file(
    name: str, item: Mapping[str, tuple[str, object] | None], syntax: UID = ExplicitVRLittleEndian
) -> bytes:
    """A file with one LUT that inverts and darkens; `item` are other contents of it, None to remove one."""
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(TWELVE, syntax, BitsStored=12, HighBit=11)))
    entry = Dataset()
    entry.add_new("LUTDescriptor", "US", [4096, 0, 12])
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    entry.add_new("LUTData", "OW", LUT_12.astype(f"{order}u2").tobytes())
    for keyword, content in item.items():
        if content is None:
            del entry[Tag(keyword)]
        else:
            entry.add_new(keyword, *content)
    setattr(dataset, name, Sequence([entry, Dataset()]))
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 1024, 2048, "LINEAR_EXACT"
    body = io.BytesIO()
    dataset.save_as(body)
    return body.getvalue()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("name", LUTS)
def test_a_lookup_table_is_read_in_every_encoding(name: str, vr: str, syntax: UID) -> None:
    given = {} if vr == "OW" else {"LUTData": ("US", LUT_12.tolist())}
    levels, _ = network_input(lut_file(name, given, syntax), 64, Sampling.AREA)
    # the modality LUT goes through the window of 0 to 2048; with a VOI LUT of 12 bits no window is applied
    white = 2048 if name == "ModalityLUTSequence" else 4095
    assert np.abs(levels - LUT_12[TWELVE] * (255 / white)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("name", LUTS)
def test_a_lookup_table_without_content_counts_as_absent(name: str) -> None:
    absent = outcome(lut_file(name, {"LUTDescriptor": None, "LUTData": None}))
    assert isinstance(absent, bytes)
    assert absent != outcome(lut_file(name, {}))
    assert (
        outcome(lut_file(name, {"LUTDescriptor": None}))
        == outcome(lut_file(name, {"LUTData": None}))
        == absent
    )
    dataset = pydicom.dcmread(io.BytesIO(lut_file(name, {})))
    for items in (Sequence([]), None):
        setattr(dataset, name, items)
        body = io.BytesIO()
        dataset.save_as(body)
        assert outcome(body.getvalue()) == absent


@pytest.mark.parametrize("name", LUTS)
@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"LUTDescriptor": ("US", [4096, 0])}, "LUTDescriptor (0028,3002) is not three whole numbers"),
        ({"LUTDescriptor": ("LO", "many")}, "LUTDescriptor (0028,3002)"),
        ({"LUTDescriptor": ("US", [4096, 0, 32])}, "32 bits per entry; 8 to 16 are supported"),
        ({"LUTDescriptor": ("US", [4096, 0, 10])}, "an entry is 2047; its descriptor says 10 bits"),
        ({"LUTDescriptor": ("US", [4000, 0, 12])}, "4096 entries; its descriptor says 4000"),
        ({"LUTData": ("OW", b"1234")}, "2 entries; its descriptor says 4096"),
        ({"LUTData": ("LO", "text")}, "LUTData (0028,3006) cannot be read"),
    ],
)
def test_a_damaged_lookup_table_is_rejected_by_name(
    name: str, item: dict[str, tuple[str, object]], message: str
) -> None:
    found = str(outcome(lut_file(name, item)))
    assert message in found
    assert name in found or message.startswith("LUTDescriptor")
