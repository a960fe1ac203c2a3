"""The demo data set: RSNA's file format and tables, what decides a label, and the same bytes every time."""

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

from lobar.synthetic.anatomy import draw_body, draw_person, draw_pose
from lobar.synthetic.findings import draw_opacities
from lobar.synthetic.phantoms import Exam, Options, draw_film, encode_dicom, list_exams, make
from tests.conftest import Run

SMALL = Options(train=20, test=3, prevalence=0.5, seed=3)
MANY = Options(train=3000, test=0, prevalence=0.36, seed=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    make(str(out), SMALL, processes=2)
    return out


@pytest.fixture(scope="module")
def exams() -> list[Exam]:
    return list_exams("train", MANY.train, MANY)


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text())))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_decode_and_carry_the_challenges_header(made: Path) -> None:
    files = sorted((made / "train_images").iterdir())
    assert len(files) == SMALL.train
    for path in files:
        assert 70_000 < path.stat().st_size < 190_000
        film = pydicom.dcmread(path)
        assert film.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
        assert film.PatientID == path.stem
        assert (film.PhotometricInterpretation, film.Modality, film.BodyPartExamined) == (
            "MONOCHROME2",
            "CR",
            "CHEST",
        )
        assert film.ViewPosition in ("AP", "PA")
        assert film.PatientSex in ("F", "M")
        assert film.PatientAge == str(int(film.PatientAge)), "the challenge writes '51', not '051Y'"
        assert (film.BitsAllocated, film.BitsStored, film.HighBit) == (8, 8, 7)
        assert film.pixel_array.shape == (1024, 1024)
        assert film.pixel_array.dtype == np.uint8


def test_header_has_the_very_elements_of_a_real_file(made: Path, real_data: Path) -> None:
    real = pydicom.dcmread(next((real_data / "rsna_sample/stage_2_train_images").iterdir()))
    ours = pydicom.dcmread(next((made / "train_images").iterdir()))
    assert [element.tag for element in ours] == [element.tag for element in real]
    assert ours.SOPClassUID == real.SOPClassUID
    assert ours.ConversionType == real.ConversionType


def test_label_table_is_written_as_the_challenge_writes_it(made: Path) -> None:
    head, *body = rows(made / "train_labels.csv")
    assert head == ["patientId", "x", "y", "width", "height", "Target"]
    assert {row[0] for row in body} == {path.stem for path in (made / "train_images").iterdir()}
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


def test_every_image_has_a_group(made: Path) -> None:
    head, *body = rows(made / "train_groups.csv")
    assert head == ["patientId", "group"]
    assert len(body) == SMALL.train
    assert {row[0] for row in body} == {path.stem for path in (made / "train_images").iterdir()}


def test_persons_have_a_little_over_two_exams_and_a_few_have_many(exams: list[Exam]) -> None:
    sizes = sorted(Counter(exam.group for exam in exams).values())
    assert 1.9 < np.mean(sizes) < 2.8
    assert sizes[len(sizes) // 2] == 1
    assert 10 < sizes[-1] < 0.05 * MANY.train


def test_prevalence_is_the_one_asked_for_and_higher_in_ap_views(exams: list[Exam]) -> None:
    share = {view: np.mean([exam.target for exam in exams if exam.view == view]) for view in ("AP", "PA")}
    assert abs(np.mean([exam.target for exam in exams]) - MANY.prevalence) < 0.03
    assert share["AP"] > 2 * share["PA"]
    for prevalence in (0.0, 1.0):
        only = list_exams("train", 50, replace(MANY, prevalence=prevalence))
        assert {exam.target for exam in only} == {bool(prevalence)}


def test_exams_of_one_person_share_the_anatomy(exams: list[Exam]) -> None:
    first = exams[:200]
    assert len({exam.draw_person() for exam in first}) == len({exam.person for exam in first}) < 150


def test_boxes_enclose_the_opacities_and_little_else() -> None:
    for seed in range(8):
        random = np.random.default_rng(seed)
        pose = draw_pose(random, "PA")
        _, inside = draw_body(draw_person(random), pose, random)
        shown = np.zeros((512, 512), np.float32)
        boxes, _ = draw_opacities(shown, inside, pose, random)
        assert 1 <= len(boxes) <= 4
        boxed = np.zeros_like(shown)
        for box in boxes:
            assert box.inside(1024, 1024)
            part = slice(box.y // 2, (box.y + box.height) // 2), slice(box.x // 2, (box.x + box.width) // 2)
            boxed[part] = shown[part]
            assert np.mean(shown[part] > 0.02) > 0.6
        assert boxed.sum() > 0.9 * shown.sum()


def test_same_bytes_for_any_number_of_processes(made: Path, tmp_path: Path) -> None:
    make(str(tmp_path), SMALL, processes=1)
    assert everything(tmp_path) == everything(made)


def test_the_first_images_are_the_same_in_a_larger_set(made: Path) -> None:
    first = list_exams("train", SMALL.train, SMALL)
    larger = replace(SMALL, train=200, test=50)
    assert list_exams("train", larger.train, larger)[: len(first)] == first
    last = first[-1]
    path = made / "train_images" / f"{last.patient_id}.dcm"
    assert encode_dicom(draw_film(last)[0], last) == path.read_bytes()


def test_another_seed_makes_other_images() -> None:
    here, there = (list_exams("train", 5, replace(SMALL, seed=seed)) for seed in (0, 1))
    assert not {exam.patient_id for exam in here} & {exam.patient_id for exam in there}
    assert not np.array_equal(draw_film(here[0])[0], draw_film(there[0])[0])


def test_train_and_test_share_no_image_and_no_person(made: Path) -> None:
    train, test = ({path.stem for path in (made / f"{part}_images").iterdir()} for part in ("train", "test"))
    assert len(test) == SMALL.test
    assert not train & test
    people = [{exam.draw_person() for exam in list_exams(part, 20, SMALL)} for part in ("train", "test")]
    assert not people[0] & people[1]


def test_film_uses_the_grey_scale_and_is_not_only_noise() -> None:
    film, _ = draw_film(list_exams("train", 1, SMALL)[0])
    coarse = cv2.resize(film, (32, 32), interpolation=cv2.INTER_AREA)
    assert coarse.max() - coarse.min() > 100
    lung, spine = coarse[12:16, 8:12].mean(), coarse[12:16, 15:17].mean()
    assert spine > lung + 20


def test_demo_json_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []
    monkeypatch.setattr("lobar.storage.objects.publish", lambda url, data: published.append(url))
    monkeypatch.setattr(
        "lobar.synthetic.phantoms._publish_all", lambda out, exams, processes: iter([[] for _ in exams])
    )
    make(str(tmp_path), SMALL)
    assert [url.rsplit("/", 1)[1] for url in published] == [
        "train_labels.csv",
        "train_groups.csv",
        "demo.json",
    ]


def test_job_is_done_at_once_where_the_set_is_there_and_rejects_other_options(made: Path, run: Run) -> None:
    options = ["--train", 20, "--test", 3, "--prevalence", 0.5, "--seed", 3]
    before = everything(made)
    status, out, err = run("demo-data", "--out", made, *options)
    assert (status, err) == (0, "")
    assert "already there" in out
    assert json.loads((made / "demo.json").read_text())["counts"]["train"] == 20
    status, _, err = run("demo-data", "--out", made, *options[:-1], 4)
    assert status == 2
    assert "seed 3" in err
    assert "seed 4" in err
    assert "another --out" in err
    assert everything(made) == before
