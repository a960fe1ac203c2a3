"""Names with a special meaning to a shell, a glob, a URL or a spreadsheet are handled as plain text."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from dev.servers import Server
from lobar.data import listing
from lobar.data.index import read_index
from lobar.data.listing import order_key
from lobar.inference.rows import table
from lobar.storage import objects as store
from lobar.storage.layout import Dataset
from tests.conftest import Run, World, make_dicom, smooth_noise
from tests.support.stores import use_server

IDS = [
    "plain", "two words", " begins with one", "Lübeck 肺", "; touch pwned #", "$(touch pwned)",
    "`touch pwned`", "-rf", "--out", "=1+1", "@SUM(A1)", "a,b", "it's", 'so "called"', "100%", "%41", "a#b",
    "a?b", "[ab]", "*", "a*c", "{x}", "{{inputs.parameters.out}}", "~", "a&b|c", "1.2.840.99",
    "NULL", "nan", "1e5",
]  # fmt: skip
LABELS = "; touch pwned #.csv"


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder and a bucket, each with one image per name, and a label table with a special name."""
    if request.param == "folder":
        fill(str(tmp_path))
        yield str(tmp_path)
    else:
        server: Server = request.getfixturevalue("s3_server")
        with use_server(server.environment):
            fill("s3://lobar/names")
            yield "s3://lobar/names"


def fill(root: str) -> None:
    rows = []
    for i, patient_id in enumerate(IDS):
        uids = {"StudyInstanceUID": f"1.2.{i}.1", "SeriesInstanceUID": f"1.2.{i}.2"}
        image = make_dicom(smooth_noise(128, 96, i), SOPClassUID=SecondaryCaptureImageStorage, **uids)
        store.publish(f"{root}/images/{patient_id}.dcm", image)
        rows.append(
            [patient_id, *("8", "8", "24", "20")[: 4 * (i % 2)], *[""] * (4 - 4 * (i % 2)), str(i % 2)]
        )
    header = ("patientId", "x", "y", "width", "height", "Target")
    store.publish(f"{root}/{LABELS}", table(header, rows))


def test_images_of_any_name_are_indexed_predicted_and_exported(
    root: str, world: World, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dataset = Dataset(store.absolute(f"{root}/d"))
    labels = ["--labels", f"{root}/{LABELS}", "--images", f"{root}/images", "--valid-fraction", 0.3]
    status, _, errors = run("label-index", *labels, "--out", dataset.url, "--max-rejected", 0.1)
    assert status == 0, errors
    # spaces around the fields of a label table are dropped, so this id has no label
    labelled = {*IDS} - {" begins with one"}
    assert {exam.patient_id for exam in read_index(dataset)} == labelled

    plan = ["--model", world.place("models"), "--images", f"{root}/images", "--shards", 3]
    assert run("plan", *plan, "--out", f"{root}/p")[0] == 0
    for shard in range(3):
        status, _, errors = run("predict", "--prediction", f"{root}/p", "--shard", shard)
        assert status == 0, errors
    assert run("merge-submission", "--prediction", f"{root}/p")[0] == 0
    submission = store.read(f"{root}/p/submission.csv").decode()
    ids = [row[0] for row in csv.reader(io.StringIO(submission, newline=""))][1:]
    assert ids == sorted(IDS, key=order_key)
    for shard in range(3):
        options = ["--to", f"{root}/reports", "--shard", shard]
        status, _, errors = run("export", "--prediction", f"{root}/p", *options)
        assert status == 0, errors
    reports = {store.name(item.url): item for item in store.list_objects(f"{root}/reports")}
    assert {*reports} == {f"{patient_id}.dcm" for patient_id in IDS}
    for item, data in store.read_many(reports.values()):
        assert isinstance(data, bytes), data
        patient_id = listing.without_suffix(store.name(item.url))
        assert f"{patient_id} no box".encode() in data or f"{patient_id} box 1".encode() in data
    assert not list(Path.cwd().glob("pwned*"))


def test_an_object_outside_the_prefix_is_not_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some stores do not normalize keys with '..'."""
    keys = ["a.dcm", "../b.dcm", "x/../c.dcm", "../../etc/passwd"]
    objects = [store.Object(f"s3://bucket/images/{key}", 9, "e") for key in keys]
    monkeypatch.setattr(store, "list_objects", lambda url: objects)
    images, others = listing.list_images("s3://bucket/images")
    assert [image.patient_id for image in images] == ["a"]
    assert others == sorted(item.url for item in objects[1:])


def test_a_patient_id_that_is_not_a_file_name_has_no_image(run: Run, tmp_path: Path) -> None:
    rows = ["patientId,x,y,width,height,Target"]
    for i in range(20):
        (tmp_path / f"p{i}.dcm").write_bytes(make_dicom(smooth_noise(64, 64, i)))
        rows.append(f"p{i},,,,,0")
    (tmp_path / "labels.csv").write_text("\n".join([*rows, "../p1,,,,,0", "a/b,,,,,0", "/etc/passwd,,,,,0"]))
    options = ["--labels", tmp_path / "labels.csv", "--images", tmp_path, "--valid-fraction", 0.3]
    status, out, _ = run("label-index", *options, "--out", tmp_path / "d", "--max-rejected", 0.2)
    assert status == 0
    assert "label without image 3" in out
