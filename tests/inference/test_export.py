"""export: reports of a finished prediction in a folder and a store, and what it rejects."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from dev.servers import Server
from lobar.inference.writers import export
from lobar.storage import objects, retry
from lobar.storage.layout import Prediction
from tests.conftest import Run
from tests.support import http
from tests.support.prediction import FOUND, REPORTED, contents, finish, listed_reports, run_all, write_images
from tests.support.radiographs import boxes_of, radiograph
from tests.support.stores import use_server


@pytest.fixture
def finished(tmp_path: Path) -> Prediction:
    return finish(write_images(tmp_path / "images"), tmp_path / "p", FOUND, shards=2)


def test_a_folder_gets_a_report_for_each_image_that_was_read(
    run: Run, finished: Prediction, tmp_path: Path
) -> None:
    results = run_all(run, finished, tmp_path / "out")
    assert [status for status, _, _ in results] == [0, 0]
    assert "1 of 2 shards were missing when this one ended: 1" in results[0][1]
    assert "all shards are exported: 7 rows, 6 reports, 1 without one" in results[1][1]
    said = "".join(out for _, out, _ in results)
    assert said.count("1 images rejected by predict: they have NO report") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{name}.dcm" for name in REPORTED]
    for name in REPORTED:
        assert boxes_of(dcmread(tmp_path / f"out/{name}.dcm")) == FOUND[name]
    lines = listed_reports(finished, str(tmp_path / "out"))
    assert [line[0] for line in lines] == REPORTED
    assert [line[1] for line in lines] == [
        dcmread(tmp_path / f"out/{n}.dcm").SOPInstanceUID for n in REPORTED
    ]


def test_a_repeat_does_nothing_and_other_shards_give_the_same_bytes(
    run: Run, finished: Prediction, tmp_path: Path
) -> None:
    run_all(run, finished, tmp_path / "out")
    before = contents(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert [(status, err) for status, _, err in run_all(run, finished, tmp_path / "out")] == [
        (0, "shard 0 is exported already"),
        (0, "shard 1 is exported already"),
    ]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    other = finish(tmp_path / "images", tmp_path / "q", FOUND, shards=3)
    run_all(run, other, tmp_path / "other", shards=3)
    assert contents(tmp_path / "other") == before


def test_s3_gets_the_same_bytes(run: Run, finished: Prediction, s3_server: Server, tmp_path: Path) -> None:
    run_all(run, finished, tmp_path / "out")
    with use_server(s3_server.environment):
        assert [status for status, _, _ in run_all(run, finished, "s3://lobar/reports")] == [0, 0]
        stored = objects.read_many(objects.list_objects("s3://lobar/reports"))
        assert {objects.name(item.url): data for item, data in stored} == contents(tmp_path / "out")


def test_another_object_in_the_place_of_a_report_stays(
    run: Run, finished: Prediction, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/c.dcm").write_bytes(b"something else")
    results = run_all(run, finished, tmp_path / "out")
    assert sorted(status for status, _, _ in results) == [0, 2]
    (error,) = [err.splitlines()[-1] for status, _, err in results if status]
    assert "out/c.dcm: another object is there; choose another folder (option --to)" in error
    assert (tmp_path / "out/c.dcm").read_bytes() == b"something else"
    assert len(export.progress(finished, str(tmp_path / "out")).missing) == 1


def test_another_submission_in_the_same_place_is_not_taken_for_exported(
    run: Run, finished: Prediction, tmp_path: Path
) -> None:
    run_all(run, finished, tmp_path / "out")
    record = tmp_path / "p/submission.json"
    merged = json.loads(record.read_text())
    record.write_text(json.dumps(merged | {"submission": "0" * 64}))
    status, _, error = run("export", "--prediction", finished.url, "--to", tmp_path / "out", "--shard", 0)
    assert status == 2
    assert "0000.json: made from other inputs (submission was" in error
    assert error.endswith("choose another destination, or restore the submission")


def test_an_unmerged_prediction_is_named(run: Run, tmp_path: Path) -> None:
    place = finish(write_images(tmp_path / "images"), tmp_path / "p", FOUND, merge=False)
    status, _, error = run("export", "--prediction", place.url, "--to", tmp_path / "out", "--shard", 0)
    assert status == 2
    assert "submission.json: not there; run merge-submission first" in error
    assert not (tmp_path / "out").exists()


def change_image(tmp_path: Path) -> None:
    (tmp_path / "images/a.dcm").write_bytes(radiograph("other"))


def change_table(tmp_path: Path) -> None:
    for path in (tmp_path / "p/shards").glob("*.csv"):
        path.write_text(path.read_text().replace("0.500000", "0.600000"))


def remove_shard(tmp_path: Path) -> None:
    (tmp_path / "p/shards/0000.json").unlink()


def exchange_shard(tmp_path: Path) -> None:
    text = (tmp_path / "p/submission.json").read_text()
    tables = json.loads(text)["inputs"]["tables"]
    (tmp_path / "p/submission.json").write_text(text.replace(tables[0], tables[0][::-1]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_image, "images/a.dcm: its content has changed since it was listed"),
        (change_table, "its content is not the one recorded"),
        (remove_shard, "shards/0000.json: not there; run predict first"),
        (exchange_shard, "submission.json: not merged from this plan and shard 0"),
    ],
)
def test_what_was_changed_since_the_prediction_is_named(
    run: Run, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    place = finish(write_images(tmp_path / "images"), tmp_path / "p", FOUND)
    damage(tmp_path)
    status, _, error = run("export", "--prediction", place.url, "--to", tmp_path / "out", "--shard", 0)
    assert status == 2
    assert message in error
    assert not list((tmp_path / "out").glob("*.dcm"))


def test_a_shard_that_does_not_exist_is_named(run: Run, finished: Prediction, tmp_path: Path) -> None:
    status, _, error = run("export", "--prediction", finished.url, "--to", tmp_path / "out", "--shard", 2)
    assert (status, error) == (2, "error: shard 2: the plan has shards 0 to 1 (option --shard)")


def test_images_without_uids_end_the_job_before_anything_is_delivered(run: Run, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", b=radiograph("b", StudyInstanceUID=None))
    place = finish(images, tmp_path / "p", FOUND)
    command = ["export", "--prediction", place.url, "--to", tmp_path / "out", "--shard", 0]
    status, _, error = run(*command)
    assert status == 2
    assert "1 of 7 images of shard 0 rejected (StudyInstanceUID (0020,000D) is missing" in error
    assert not list((tmp_path / "out").glob("*.dcm"))
    status, out, log = run(*command, "--max-rejected", 0.2)
    assert status == 0
    assert "images/b.dcm: no report: StudyInstanceUID (0020,000D) is missing" in log
    assert "1 more have NO report: b (StudyInstanceUID" in out
    assert [*contents(tmp_path / "out")] == [f"{name}.dcm" for name in REPORTED if name != "b"]
    assert run(*command)[0] == 2  # again with the default: the finished shard has too many


def test_two_images_that_are_one_instance_are_named(run: Run, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", b=radiograph("a"))
    place = finish(images, tmp_path / "p", FOUND)
    status, _, error = run("export", "--prediction", place.url, "--to", tmp_path / "out", "--shard", 0)
    assert status == 2
    assert "has the SOPInstanceUID of file://" in error
    assert {"a.dcm", "b.dcm"} == {name for name in ("a.dcm", "b.dcm") if f"images/{name}" in error}
    assert not list((tmp_path / "out").glob("*.dcm"))


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("", "the destination is empty"),
        ("https://pacs.example.org/dicom-web", "give dicomweb+https://pacs.example.org/dicom-web"),
        ("dicomweb+https://user:secret@pacs.example.org/x", "credentials in the URL"),
        ("dicomweb+ftp://pacs.example.org/x", "give dicomweb+https://HOST/PATH"),
    ],
)
def test_a_wrong_destination_is_named(run: Run, finished: Prediction, to: str, message: str) -> None:
    status, out, error = run("export", "--prediction", finished.url, "--to", to, "--shard", 0)
    assert status == 2
    assert message in error
    assert "(option --to)" in error
    assert "secret" not in out + error


def test_reports_that_a_server_does_not_store_are_named_and_the_others_sent(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stub replaces the server: it rejects one report of each request and warns of another."""
    place = finish(write_images(tmp_path / "images"), tmp_path / "p", FOUND)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(export, "BATCH_BYTES", 20_000)
    requests: list[list[str]] = []

    def answer(asked: http.Request) -> tuple[int, bytes]:
        boundary = asked.headers["Content-Type"].split("boundary=")[1].encode()
        parts = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in asked.body.split(b"--" + boundary)[1:-1]]
        uids = [str(dcmread(io.BytesIO(part)).SOPInstanceUID) for part in parts]
        requests.append(uids)
        items = [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in uids]
        items[0]["00081197"] = items[-1]["00081196"] = {"vr": "US", "Value": [0xA700]}
        body = {"00081198": {"vr": "SQ", "Value": items[:1]}, "00081199": {"vr": "SQ", "Value": items[1:]}}
        return 202, json.dumps(body).encode()

    with http.serve(answer, tmp_path) as server:
        to = f"dicomweb+{server.url}/x"
        status, _, error = run("export", "--prediction", place.url, "--to", to, "--shard", 0)
    assert status == 75
    assert len(requests) > 1
    assert sum(map(len, requests)) == len(REPORTED)
    last = error.splitlines()[-1]
    assert f"{to}: {len(requests)} of {len(REPORTED)} reports were not stored: " in last
    assert last.count("(0xA700, out of resources)") == len(requests)
    assert "run the same command again" in last
    assert error.count("not stored: 0xA700") == len(requests)
    assert "stored with a warning: 0xA700" in error
    assert export.progress(place, to).missing == [0]


def test_no_header_value_reaches_a_log_or_the_prediction(run: Run, tmp_path: Path) -> None:
    texts = dict.fromkeys(["PatientName", "PatientID", "ReferringPhysicianName", "StudyID"], "DOE JOHN")
    private = {name: radiograph(name, **texts, PatientSex="DOE", StudyDate="DOE") for name in FOUND}
    private["b"] = radiograph("b", **texts, StudyInstanceUID=None)
    private["e"] = radiograph("e", **texts | {"PatientID": "DOE" * 30})
    place = finish(write_images(tmp_path / "images", **private), tmp_path / "p", FOUND)
    command = ["export", "--prediction", place.url, "--to", tmp_path / "out", "--shard", 0]
    results = [run(*command), run(*command, "--max-rejected", 1)]
    assert [status for status, _, _ in results] == [2, 0]
    assert all("DOE" not in out + err for _, out, err in results)
    assert "left empty in its report: PatientSex (0010,0040), StudyDate (0008,0020)" in results[1][2]
    kept = [path.read_bytes() for path in (tmp_path / "p").rglob("*") if path.is_file()]
    assert all(b"DOE" not in data for data in kept)
    assert all(b"DOE JOHN" in data for data in contents(tmp_path / "out").values())  # as their images
