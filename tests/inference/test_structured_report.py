"""One image's report: what it says, what DICOM's own tools say of it, and that its bytes repeat."""

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from lobar.core.boxes import Box
from lobar.imaging.elements import RejectedImage
from lobar.inference.record import PlanInputs
from lobar.inference.rows import parse_prediction_string, prediction_string
from lobar.inference.writers import source
from lobar.inference.writers.structured_report import Report, Writer
from tests.support.prediction import INPUTS
from tests.support.radiographs import KINDS, boxes_of, radiograph

BOXES = [Box(3, 4, 20, 30, 0.512345), Box(0, 0, 64, 96, 1.0)]


def report(image: bytes, boxes: list[Box], name: str = "x", prediction: PlanInputs = INPUTS) -> Report:
    return Writer(prediction).report(name, source.read(image), boxes)


def parsed(made: Report) -> Dataset:
    return dcmread(io.BytesIO(made.data))


def texts(dataset: Dataset) -> str:
    return dataset.to_json()


def command(program: str, file: Path) -> str:
    """What one of DICOM's own tools says of a file; skips if it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} was not found: apt-get install dicom3tools dcmtk")
    done = subprocess.run([program, str(file)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def errors_of(made: Report, tmp_path: Path) -> list[str]:
    (tmp_path / "report.dcm").write_bytes(made.data)
    said = command("dciodvfy", tmp_path / "report.dcm")
    assert "ComprehensiveSR" in said
    return [line for line in said.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("boxes", [BOXES, []], ids=["boxes", "nothing"])
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error(kind: str, boxes: list[Box], tmp_path: Path) -> None:
    assert errors_of(report(radiograph(**KINDS[kind]), boxes), tmp_path) == []


def test_dciodvfy_finds_no_error_for_real_images(real_data: Path, tmp_path: Path) -> None:
    files = sorted((real_data / "dicom_compat").glob("*.dcm"))
    assert len(files) > 10
    for file in files:
        for boxes in (BOXES, []):
            assert errors_of(report(file.read_bytes(), boxes, file.stem), tmp_path) == [], file


def test_dciodvfy_would_find_an_error(tmp_path: Path) -> None:
    broken = parsed(report(radiograph(), BOXES))
    del broken.VerificationFlag
    broken.save_as(tmp_path / "broken.dcm")
    assert "Error" in command("dciodvfy", tmp_path / "broken.dcm")


def test_dsrdump_shows_the_findings(tmp_path: Path) -> None:
    (tmp_path / "report.dcm").write_bytes(report(radiograph(), BOXES).data)
    said = command("dsrdump", tmp_path / "report.dcm")
    assert "Verification Flag   : UNVERIFIED" in said
    assert said.count('"Finding")=(233604007,SCT,"Pneumonia")') == 2
    assert '"Certainty of Finding")="51.2345" (%,UCUM,"Percent")' in said
    assert said.count("(POLYLINE,") == 2
    assert '"Comment")="Not for clinical use.' in said


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.builds(Box, *[st.integers(0, 8000)] * 2, *[st.integers(1, 8000)] * 2, st.floats(0, 1)), max_size=3
    )
)
def test_the_boxes_are_those_of_the_row(found: list[Box]) -> None:
    row = parse_prediction_string(prediction_string(found))
    assert boxes_of(parsed(report(radiograph(), row))) == row


def test_a_row_without_boxes_says_that_pneumonia_is_absent() -> None:
    dataset = parsed(report(radiograph(), []))
    assert boxes_of(dataset) == []
    (group,) = dataset.ContentSequence[-2].ContentSequence
    codes = {
        item.ConceptNameCodeSequence[0].CodeValue: item.ConceptCodeSequence[0].CodeValue
        for item in group.ContentSequence
        if item.ValueType == "CODE"
    }
    assert codes == {
        "363698007": "39607008",
        "233604007": "272519000",
    }  # finding site: lung; pneumonia: absent
    assert "121071" not in codes  # no finding
    comment = dataset.ContentSequence[-1].TextValue
    assert comment.startswith("Not for clinical use.")
    assert "found no lung opacity" in comment


def test_it_refers_to_its_image_and_repeats_its_patient() -> None:
    image = dcmread(io.BytesIO(radiograph()))
    for boxes in (BOXES, []):
        dataset = parsed(report(radiograph(), boxes))
        for keyword in source.REPEATED:
            assert dataset.get(keyword, "") == image.get(keyword, ""), keyword
        assert dataset.StudyInstanceUID == image.StudyInstanceUID
        assert dataset.SeriesInstanceUID != image.SeriesInstanceUID
        (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
        (series,) = study.ReferencedSeriesSequence
        (instance,) = series.ReferencedSOPSequence
        assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (
            image.StudyInstanceUID,
            image.SeriesInstanceUID,
        )
        assert instance.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert instance.ReferencedSOPClassUID == image.SOPClassUID
    assert (dataset.ContentDate, dataset.ContentTime) == ("20261102", "131415")


def test_it_names_algorithm_version_and_model() -> None:
    text = texts(parsed(report(radiograph(), BOXES)))
    assert INPUTS.lobar in text
    assert f"model: openvino-{INPUTS.files.int8_weights}.bin, named by its SHA-256" in text
    assert "precision: int8 on the cpu" in text
    on_gpu = replace(INPUTS, device="gpu", precision="float32")
    assert f"model-{INPUTS.files.keras}.keras" in texts(parsed(report(radiograph(), [], prediction=on_gpu)))


def test_bytes_repeat_and_uids_are_those_of_the_content() -> None:
    first = report(radiograph(), BOXES)
    assert report(radiograph(), BOXES) == first
    # neither the number of shards nor the folders of a prediction are in it
    elsewhere = replace(INPUTS, shards=7, images="s3://elsewhere", model="s3://m", images_digest="x")
    assert report(radiograph(), BOXES, prediction=elsewhere) == first
    others = [
        report(radiograph(), BOXES[:1]),
        report(radiograph(), []),
        report(radiograph(), BOXES, name="y"),
        report(radiograph(PatientSex="M"), BOXES),
        report(radiograph("y"), BOXES),
        report(radiograph(), BOXES, prediction=replace(INPUTS, precision="float32")),
        report(radiograph(), BOXES, prediction=replace(INPUTS, lobar="0.1.0+other")),
    ]
    assert len({first.uid, *(other.uid for other in others)}) == 1 + len(others)
    assert first.uid == parsed(first).SOPInstanceUID == parsed(first).file_meta.MediaStorageSOPInstanceUID
    assert first.uid.startswith("2.25.")


def test_texts_in_any_character_set_are_kept() -> None:
    image = radiograph(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen")
    made = report(image, BOXES, name="図1")
    assert (parsed(made).PatientName, parsed(made).SpecificCharacterSet) == ("Müller^Jürgen", "ISO_IR 192")
    assert "図1 box 1".encode() in made.data


def test_a_name_that_its_character_set_does_not_have_is_left_empty() -> None:
    broken = radiograph(SpecificCharacterSet="ISO_IR 192", PatientName="MARK").replace(b"MARK", b"M\xff\xfeK")
    assert source.read(broken).unusable == ("PatientName (0010,0010)",)


@pytest.mark.parametrize("keyword", source.REFERENCED)
def test_an_image_without_a_uid_has_no_report(keyword: str) -> None:
    with pytest.raises(RejectedImage, match=rf"{keyword} \(.*\) is missing: a report cannot refer"):
        source.read(radiograph(**{keyword: None}))


@pytest.mark.parametrize(
    ("elements", "named"),
    [
        ({"SOPInstanceUID": "1.2.x"}, "SOPInstanceUID"),
        ({"PatientID": "DOE" * 30}, "PatientID"),
        ({"PatientID": ["DOE", "ROE"]}, "PatientID"),
    ],
)
def test_an_identity_that_the_standard_forbids_is_rejected_without_its_value(
    elements: dict[str, object], named: str
) -> None:
    with pytest.raises(
        RejectedImage, match=rf"{named} \(.*\) has a value that the standard does not"
    ) as raised:
        source.read(radiograph(**elements))
    assert "DOE" not in str(raised.value)


def test_a_private_image_class_is_rejected() -> None:
    with pytest.raises(RejectedImage, match=r"SOPClassUID \(0008,0016\) is not one of the standard's"):
        report(radiograph(SOPClassUID="1.2.3.4"), BOXES)


def test_other_values_of_no_use_are_left_empty_and_named(tmp_path: Path) -> None:
    image = radiograph(PatientSex="U", StudyDate="2026.11.1", StudyTime="noon", AccessionNumber="A" * 17)
    read = source.read(image)
    assert [name.split()[0] for name in read.unusable] == [
        "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    ]  # fmt: skip
    assert errors_of(report(image, BOXES), tmp_path) == []


def test_an_image_without_dates_gives_a_fixed_one(tmp_path: Path) -> None:
    image = radiograph(**dict.fromkeys(["StudyDate", "StudyTime", "ContentDate", "ContentTime"]))
    assert (source.read(image).date, source.read(image).time) == source.UNDATED
    assert errors_of(report(image, BOXES), tmp_path) == []
