import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.data.index import read_index, split_of
from lobar.data.listing import list_images
from lobar.imaging.dicom import HEADER_BYTES
from lobar.storage import objects
from lobar.storage.layout import Dataset
from tests.conftest import Run, make_dicom, smooth_noise

LABELS = "patientId,x,y,width,height,Target\n"
Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def small(write: Write, tmp_path: Path) -> list[object]:
    """label-index's options for six images of 64 x 48 (rows x columns), every other one positive."""
    for i in range(6):
        write(f"images/p{i}.dcm", make_dicom(smooth_noise(64, 48, i), ViewPosition="AP" if i < 3 else "PA"))
    rows = [f"p{i},1.0,2.0,10.0,{20 + i}.0,1\n" if i % 2 else f"p{i},,,,,0\n" for i in range(6)]
    write("labels.csv", LABELS + "".join(rows))
    return ["label-index", "--labels", tmp_path / "labels.csv", "--images", tmp_path / "images",
            "--out", tmp_path / "d", "--valid-fraction", 0.5]  # fmt: skip


def test_index_has_every_image_with_its_boxes_size_view_and_split(
    small: list[object], run: Run, tmp_path: Path
) -> None:
    status, out, _ = run(*small)
    assert status == 0
    assert "rejected: nothing" in out
    exams = {exam.patient_id: exam for exam in read_index(Dataset(objects.absolute(str(tmp_path / "d"))))}
    assert sorted(exams) == [f"p{i}" for i in range(6)]
    assert exams["p3"].boxes == (Box(1, 2, 10, 23),)
    assert (exams["p3"].rows, exams["p3"].columns, exams["p3"].view, exams["p3"].target) == (64, 48, "PA", 1)
    assert exams["p0"].boxes == ()
    assert exams["p0"].bytes == (tmp_path / "images/p0.dcm").stat().st_size
    assert {exam.split for exam in exams.values()} == {"train", "valid"}
    assert all(exam.split == split_of(exam.group, 0.5, 0) for exam in exams.values())


def test_same_inputs_give_same_bytes_and_other_inputs_are_rejected(
    small: list[object], run: Run, tmp_path: Path, write: Write
) -> None:
    assert run(*small)[0] == 0
    first = next((tmp_path / "d").glob("index-*.parquet")).read_bytes()
    status, out, _ = run(*small)
    assert (status, "complete already" in out) == (0, True)
    other_folder = [*small[:6], tmp_path / "again", *small[7:]]
    assert run(*other_folder)[0] == 0
    assert next((tmp_path / "again").glob("index-*.parquet")).read_bytes() == first
    status, _, error = run(*small, "--seed", 1)
    assert status == 2
    assert error.endswith(
        "manifest.json: made from other inputs (seed was 0, now 1); choose another place (option --out)"
    )


def test_no_group_is_in_both_splits(small: list[object], run: Run, tmp_path: Path, write: Write) -> None:
    groups = write("groups.csv", "patientId,group\n" + "".join(f"p{i},patient{i % 3}\n" for i in range(6)))
    assert run(*small, "--groups", groups, "--seed", 4)[0] == 0
    splits: dict[str, set[str]] = {}
    for exam in read_index(Dataset(objects.absolute(str(tmp_path / "d")))):
        splits.setdefault(exam.group, set()).add(exam.split)
    assert len(splits) == 3
    assert all(len(names) == 1 for names in splits.values())


@given(st.text(), st.floats(0, 1), st.floats(0, 1), st.integers(0, 100))
def test_a_larger_fraction_only_adds_to_the_validation_split(
    group: str, a: float, b: float, seed: int
) -> None:
    low, high = sorted((a, b))
    assert split_of(group, low, seed) == "train" or split_of(group, high, seed) == "valid"


def test_validation_split_has_the_requested_fraction() -> None:
    valid = sum(split_of(f"group {i}", 0.2, 7) == "valid" for i in range(10_000))
    assert 1850 < valid < 2150


@pytest.mark.parametrize(
    ("rows", "drop", "message"),
    [
        ("extra,1,2,3,4,1\n", None, "label without image 1"),
        ("", "p0", "image without label 1"),
        ("p1,40,2,9,4,1\n", None, "a box outside the image 1"),
        ("p1,a,2,9,4,1\n", None, "text where a number is expected 1"),
    ],
)
def test_rejections_exit_with_2_and_counts_unless_allowed(
    small: list[object], run: Run, tmp_path: Path, rows: str, drop: str | None, message: str
) -> None:
    table = tmp_path / "labels.csv"
    kept = [line for line in table.read_text().splitlines(True) if not (drop and line.startswith(drop))]
    table.write_text("".join(kept) + rows)
    status, _, error = run(*small)
    assert status == 2
    patients = 7 if rows.startswith("extra") else 6
    assert f"error: 1 of {patients} patients rejected ({message}); the allowed share is 0.01; fix" in error
    assert error.endswith("(option --max-rejected)")
    assert not (tmp_path / "d").exists()
    status, out, _ = run(*small, "--max-rejected", 0.2)
    assert status == 0
    assert f"rejected: {message}" in out
    manifest = json.loads((tmp_path / "d/manifest.json").read_text())
    assert len(manifest["rejected"]) == 1
    remaining = read_index(Dataset(objects.absolute(str(tmp_path / "d"))))
    assert manifest["rejected"][0]["patient_id"] not in {exam.patient_id for exam in remaining}


def test_an_unreadable_image_and_a_missing_group_are_rejected(
    small: list[object], run: Run, tmp_path: Path, write: Write
) -> None:
    write("images/p2.dcm", b"no image")
    groups = write("groups.csv", "patientId,group\n" + "".join(f"p{i},{i}\n" for i in range(1, 6)))
    status, _, error = run(*small, "--groups", groups)
    assert status == 2
    assert "2 of 6 patients rejected (not in the groups table 1, unreadable image 1)" in error
    assert "not a DICOM file" in error


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--labels", "nowhere.csv", "nowhere.csv: there is no such object"),
        ("--images", "nowhere", "nowhere: no images there (objects named ID.dcm); 0 other objects"),
        ("--groups", "nowhere.csv", "nowhere.csv: there is no such object"),
        ("--valid-fraction", 0, "no image in the valid split: 6 images with valid_fraction 0 and seed 0"),
        (
            "--valid-fraction",
            2,
            "Invalid value for '--valid-fraction': Input should be less than or equal to 1",
        ),
        ("--labels", "gopher://x/y", "gopher://: Protocol not known: gopher"),
    ],
)
def test_wrong_options_exit_with_2_and_an_error(
    small: list[object], run: Run, option: str, value: object, message: str
) -> None:
    status, _, error = run(*small, option, value)
    assert status == 2
    assert message in error


def test_which_files_are_listed_as_images(write: Write, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "images") + b"/\xff.dcm")).write_bytes(b"x")
    names = ["a.dcm", "b.DCM", "1.2.276.0.850819.dcm", "sub/c.dicom", "d.dcm.dcm"]
    for name in [*names, "notes.txt", "d.dcm.part", "e.dcm.gz", "f.zip", ".hidden.dcm", "._a.dcm"]:
        write(f"images/{name}", b"x")
    for name in ("1.2.276.0.850820", "bare", "sub/IM00001"):
        write(f"images/{name}", bytes(128) + b"DICM")
    images, others = list_images(str(tmp_path / "images"))
    assert {i.patient_id for i in images} == {
        "a", "b", "1.2.276.0.850819", "1.2.276.0.850820", "bare", "IM00001", "c", "d",
    }  # fmt: skip
    assert [objects.name(url) for url in others] == [
        "d.dcm.part", "e.dcm.gz", "f.zip", "notes.txt", "\\udcff.dcm",
    ]  # fmt: skip


def test_objects_beside_the_images_of_a_disc_or_an_archive_are_not_images(
    write: Write, run: Run, tmp_path: Path
) -> None:
    write("images/p1", make_dicom(smooth_noise(64, 48)))
    disc = bytes(128) + b"DICM"
    found = {
        "LICENSE": b"Apache " * 30,
        "_SUCCESS": b"",
        "README.1": b"x",
        "DICOMDIR": disc,
        "cd/dicomdir": disc,
    }
    found |= {"Thumbs.db": disc, "desktop.ini": b"x", "short": disc[:-1]}
    for name, content in found.items():
        write(f"images/{name}", content)
    images, others = list_images(str(tmp_path / "images"))
    assert [image.patient_id for image in images] == ["p1"]
    assert [url.rpartition("/images/")[2] for url in others] == sorted(found)
    (tmp_path / "images/p1").unlink()
    labels = write("labels.csv", LABELS + "p1,,,,,0\n")
    status, _, error = run(
        "label-index", "--labels", labels, "--images", tmp_path / "images", "--out", tmp_path / "d"
    )
    assert status == 2
    assert f"no images there (objects named ID.dcm); {len(found)} other objects, for example file://" in error


def test_empty_objects_that_stand_for_folders_are_not_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of the listing: AWS allows such keys, but no file system and no server that runs here does."""
    sizes = {"s.dcm": 0, "s.dcm-2.dcm": 1, "s.dcm/p1.dcm": 1, "sub": 0, "sub-2.dcm": 0, "sub/p2.dcm": 1}
    listed = [objects.Object(f"s3://b/i/{name}", size, "") for name, size in sizes.items()]
    monkeypatch.setattr(objects, "list_objects", lambda url: listed)
    images, others = list_images("s3://b/i")
    assert {image.patient_id for image in images} == {"s.dcm-2", "p1", "sub-2", "p2"}
    assert others == ["s3://b/i/s.dcm", "s3://b/i/sub"]


def test_hidden_folders_pipes_and_dangling_links_are_not_listed(write: Write, tmp_path: Path) -> None:
    write("images/a.dcm", b"x")
    write("images/.ipynb_checkpoints/a-checkpoint.dcm", b"x")
    os.mkfifo(tmp_path / "images/pipe.dcm")
    (tmp_path / "images/dead.dcm").symlink_to(tmp_path / "nowhere")
    (tmp_path / "images/link.dcm").symlink_to(tmp_path / "images/a.dcm")
    images, others = list_images(str(tmp_path / "images"))
    assert sorted(image.patient_id for image in images) == ["a", "link"]
    assert others == []


def test_long_header_is_read_and_empty_file_is_rejected(
    small: list[object], run: Run, tmp_path: Path, write: Write
) -> None:
    long = make_dicom(smooth_noise(64, 48), PatientComments="x" * 2 * HEADER_BYTES)
    write("images/p1.dcm", long)
    assert run(*small)[0] == 0
    write("images/p1.dcm", b"")
    status, _, error = run(*small, "--out", tmp_path / "other")
    assert status == 2
    assert "unreadable image: an empty file" in error


def test_a_new_rejected_image_changes_the_inputs(small: list[object], run: Run, write: Write) -> None:
    assert run(*small)[0] == 0
    write("images/new.dcm", make_dicom(smooth_noise(64, 48)))
    status, _, error = run(*small, "--max-rejected", 0.5)
    assert status == 2
    assert "made from other inputs (images_digest was" in error


def test_two_images_with_one_name_are_rejected(small: list[object], run: Run, write: Write) -> None:
    write("images/again/p1.dcm", make_dicom(smooth_noise(64, 48)))
    status, _, error = run(*small)
    assert status == 2
    assert "two images of one name 1" in error


def test_real_label_table_with_seventeen_images(real_data: Path, run: Run, tmp_path: Path) -> None:
    tables, images = real_data / "rsna_tables", real_data / "rsna_sample/stage_2_train_images"
    options = ["label-index", "--labels", tables / "stage_2_train_labels.csv.gz", "--images", images,
               "--groups", tables / "stage_2_train_groups.csv.gz", "--out", tmp_path / "d",
               "--valid-fraction", 0.3]  # fmt: skip
    status, _, error = run(*options)
    assert status == 2
    assert "26667 of 26684 patients rejected (label without image 26667)" in error
    assert run(*options, "--max-rejected", 1)[0] == 0
    exams = read_index(Dataset(objects.absolute(str(tmp_path / "d"))))
    assert (len(exams), sum(exam.target for exam in exams), sum(len(exam.boxes) for exam in exams)) == (
        17,
        6,
        12,
    )
