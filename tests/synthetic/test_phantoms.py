"""The synthetic dataset: RSNA's format, agreement of labels and images, reproducible bytes."""

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from lobar.storage import records
from lobar.synthetic.anatomy import draw_body, draw_patient, draw_pose
from lobar.synthetic.findings import draw_opacities
from lobar.synthetic.phantoms import Demo, Exam, Options, draw_image, encode_dicom, list_exams, make
from tests.conftest import Run

SMALL = Options(train=20, test=3, prevalence=0.5, seed=3)
MANY = Options(train=3000, test=0, prevalence=0.36, seed=0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    make(str(out), SMALL, processes=2)
    return out


@pytest.fixture(scope="module")
def exams() -> list[Exam]:
    return list_exams("train", MANY.train, MANY)


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text())))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_time(files: dict[str, bytes]) -> dict[str, object]:
    """Contents of a dataset, with `demo.json` as a record without its time of creation."""
    demo = json.loads(files["demo.json"])
    del demo["created"]
    return {**files, "demo.json": demo}


def test_files_decode_and_have_rsna_headers(dataset: Path) -> None:
    files = sorted((dataset / "train_images").iterdir())
    assert len(files) == SMALL.train
    for path in files:
        assert 70_000 < path.stat().st_size < 190_000
        image = pydicom.dcmread(path)
        assert image.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
        assert image.PatientID == path.stem
        assert (image.PhotometricInterpretation, image.Modality, image.BodyPartExamined) == (
            "MONOCHROME2",
            "CR",
            "CHEST",
        )
        assert image.ViewPosition in ("AP", "PA")
        assert image.PatientSex in ("F", "M")
        assert image.PatientAge == str(int(image.PatientAge)), "RSNA writes '51', not '051Y'"
        assert (image.BitsAllocated, image.BitsStored, image.HighBit) == (8, 8, 7)
        assert image.pixel_array.shape == (1024, 1024)
        assert image.pixel_array.dtype == np.uint8


def test_header_has_the_same_elements_as_a_real_file(dataset: Path, real_data: Path) -> None:
    real = pydicom.dcmread(next((real_data / "rsna_sample/stage_2_train_images").iterdir()))
    ours = pydicom.dcmread(next((dataset / "train_images").iterdir()))
    assert [element.tag for element in ours] == [element.tag for element in real]
    assert ours.SOPClassUID == real.SOPClassUID
    assert ours.ConversionType == real.ConversionType


def test_label_table_has_rsna_format(dataset: Path) -> None:
    head, *body = rows(dataset / "train_labels.csv")
    assert head == ["patientId", "x", "y", "width", "height", "Target"]
    assert {row[0] for row in body} == {path.stem for path in (dataset / "train_images").iterdir()}
    negative = [row for row in body if row[5] == "0"]
    positive = [row for row in body if row[5] == "1"]
    assert negative
    assert positive
    assert all(row[1:5] == [""] * 4 for row in negative)
    for _, *numbers, _ in positive:
        assert all(number.endswith(".0") and float(number) >= 0 for number in numbers)
        x, y, width, height = map(float, numbers)
        assert min(width, height) >= 40
        assert max(x + width, y + height) <= 1024
    rows_of = Counter(row[0] for row in body)
    assert not {row[0] for row in negative} & {row[0] for row in positive}
    assert max(rows_of.values()) <= 4


def test_every_image_has_a_group(dataset: Path) -> None:
    head, *body = rows(dataset / "train_groups.csv")
    assert head == ["patientId", "group"]
    assert len(body) == SMALL.train
    assert {row[0] for row in body} == {path.stem for path in (dataset / "train_images").iterdir()}


def test_patients_have_a_little_over_two_exams_and_a_few_have_many(exams: list[Exam]) -> None:
    sizes = sorted(Counter(exam.group for exam in exams).values())
    assert 1.9 < np.mean(sizes) < 2.8
    assert sizes[len(sizes) // 2] == 1
    assert 10 < sizes[-1] < 0.05 * MANY.train


def test_prevalence_is_as_requested_and_higher_in_ap_views(exams: list[Exam]) -> None:
    share = {view: np.mean([exam.target for exam in exams if exam.view == view]) for view in ("AP", "PA")}
    assert abs(np.mean([exam.target for exam in exams]) - MANY.prevalence) < 0.03
    assert share["AP"] > 2 * share["PA"]
    for prevalence in (0.0, 1.0):
        only = list_exams("train", 50, replace(MANY, prevalence=prevalence))
        assert {exam.target for exam in only} == {bool(prevalence)}


def test_exams_of_one_patient_share_the_anatomy(exams: list[Exam]) -> None:
    first = exams[:200]
    assert len({exam.draw_patient() for exam in first}) == len({exam.patient for exam in first}) < 150


def test_boxes_tightly_enclose_the_opacities() -> None:
    for seed in range(8):
        random = np.random.default_rng(seed)
        pose = draw_pose(random, "PA")
        _, lungs = draw_body(draw_patient(random), pose, random)
        attenuation = np.zeros((512, 512), np.float32)
        boxes, _ = draw_opacities(attenuation, lungs, pose, random)
        assert 1 <= len(boxes) <= 4
        enclosed = np.zeros_like(attenuation)
        for box in boxes:
            assert box.inside(1024, 1024)
            part = slice(box.y // 2, (box.y + box.height) // 2), slice(box.x // 2, (box.x + box.width) // 2)
            enclosed[part] = attenuation[part]
            assert np.mean(attenuation[part] > 0.02) > 0.6
        assert enclosed.sum() > 0.9 * attenuation.sum()


def test_same_bytes_for_any_number_of_processes(dataset: Path, tmp_path: Path) -> None:
    make(str(tmp_path), SMALL, processes=1)
    assert without_time(contents(tmp_path)) == without_time(contents(dataset))


def test_the_first_images_are_the_same_in_a_larger_set(dataset: Path) -> None:
    first = list_exams("train", SMALL.train, SMALL)
    larger = replace(SMALL, train=200, test=50)
    assert list_exams("train", larger.train, larger)[: len(first)] == first
    last = first[-1]
    path = dataset / "train_images" / f"{last.patient_id}.dcm"
    assert encode_dicom(draw_image(last)[0], last) == path.read_bytes()


def test_different_seeds_give_different_images() -> None:
    first, second = (list_exams("train", 5, replace(SMALL, seed=seed)) for seed in (0, 1))
    assert not {exam.patient_id for exam in first} & {exam.patient_id for exam in second}
    assert not np.array_equal(draw_image(first[0])[0], draw_image(second[0])[0])


def test_train_and_test_share_no_image_and_no_patient(dataset: Path) -> None:
    train, test = (
        {path.stem for path in (dataset / f"{part}_images").iterdir()} for part in ("train", "test")
    )
    assert len(test) == SMALL.test
    assert not train & test
    patients = [{exam.draw_patient() for exam in list_exams(part, 20, SMALL)} for part in ("train", "test")]
    assert not patients[0] & patients[1]


def test_image_has_contrast_and_visible_anatomy() -> None:
    image, _ = draw_image(list_exams("train", 1, SMALL)[0])
    coarse = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    assert coarse.max() - coarse.min() > 100
    lung, spine = coarse[12:16, 8:12].mean(), coarse[12:16, 15:17].mean()
    assert spine > lung + 20


def test_demo_json_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []
    monkeypatch.setattr("lobar.storage.objects.publish", lambda url, data: published.append(url))
    monkeypatch.setattr("lobar.storage.objects.create", lambda url, data: not published.append(url))
    monkeypatch.setattr(
        "lobar.synthetic.phantoms._publish_images", lambda out, exams, processes: iter([[] for _ in exams])
    )
    make(str(tmp_path), SMALL)
    assert [url.rsplit("/", 1)[1] for url in published] == [
        "train_labels.csv",
        "train_groups.csv",
        "demo.json",
    ]


def test_complete_dataset_is_not_drawn_again_and_other_options_are_rejected(dataset: Path, run: Run) -> None:
    options = ["--train", 20, "--test", 3, "--prevalence", 0.5, "--seed", 3]
    before = contents(dataset)
    status, out, err = run("demo-data", "--out", dataset, *options)
    assert (status, err) == (0, "")
    assert "already there" in out
    assert json.loads((dataset / "demo.json").read_text())["counts"]["train"] == 20
    demo = records.read(str(dataset / "demo.json"), Demo)
    groups = {row[1] for row in rows(dataset / "train_groups.csv")[1:]}
    assert (demo.format, demo.inputs, demo.counts.patients) == (1, SMALL, len(groups))
    status, _, err = run("demo-data", "--out", dataset, *options[:-1], 4)
    assert status == 2
    assert "seed was 3" in err
    assert "now 4" in err
    assert "choose another folder" in err
    assert contents(dataset) == before
