"""Export to a real DICOMweb server: Orthanc with its plugin."""

import csv
import io
import json
import signal
import subprocess
import sys
import urllib.request
from email.parser import BytesParser
from pathlib import Path

from pydicom import dcmread

from dev import archive
from lobar.core.boxes import Box
from lobar.inference.rows import parse_prediction_string
from lobar.inference.writers import dicomweb, export
from lobar.storage import objects, records
from tests.conftest import Run
from tests.support.prediction import FOUND, REPORTED, contents, finish, listed_reports, run_all, write_images
from tests.support.radiographs import boxes_of, radiograph


def stow(server: archive.Archive, *instances: bytes) -> None:
    outcome = dicomweb.Archive(f"dicomweb+{server.dicomweb}").store(
        {str(dcmread(io.BytesIO(data)).SOPInstanceUID): data for data in instances}
    )
    assert outcome == dicomweb.Outcome()


def wado(url: str) -> bytes:
    """The one instance in a WADO-RS reply."""
    request = urllib.request.Request(url, headers={"Accept": 'multipart/related; type="application/dicom"'})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as reply:
        head = f"Content-Type: {reply.headers['Content-Type']}\r\n\r\n".encode()
        (part,) = BytesParser().parsebytes(head + reply.read()).get_payload()
    return part.get_payload(decode=True)


def reports_in(server: archive.Archive, name: str) -> list[dict[str, dict[str, list[str]]]]:
    """The structured reports of a patient, by QIDO-RS."""
    return json.loads(archive.get(f"{server.dicomweb}/instances?Modality=SR&PatientID={name}"))


def test_an_archive_finds_the_reports_of_its_images(
    run: Run, tmp_path: Path, orthanc: archive.Archive
) -> None:
    """Images in, reports in, found by QIDO-RS, fetched by WADO-RS: their boxes are those of the CSV."""
    images = write_images(tmp_path / "images")
    stow(orthanc, *contents(images).values())
    place = finish(images, tmp_path / "p", FOUND, shards=2)
    to = f"dicomweb+{orthanc.dicomweb}"
    assert [status for status, _, _ in run_all(run, place, to)] == [0, 0]
    rows = dict(list(csv.reader(io.StringIO((tmp_path / "p/submission.csv").read_text())))[1:])
    sent = {name: sha256 for name, _, sha256 in listed_reports(place, to)}
    for name in FOUND:
        found = reports_in(orthanc, name)
        assert len(found) == (name in REPORTED)
        for instance in found:
            image = dcmread(images / f"{name}.dcm")
            assert instance["0020000D"]["Value"] == [image.StudyInstanceUID]
            data = wado(instance["00081190"]["Value"][0])
            assert boxes_of(dcmread(io.BytesIO(data))) == parse_prediction_string(rows[name])
            assert records.sha256(data) == sent[name]
    # a second time, as after a lost record: nothing is stored twice
    for number in (0, 1):
        objects.remove(export.folder(place, to).shard_record(number))
    assert [status for status, _, _ in run_all(run, place, to)] == [0, 0]
    assert all(len(reports_in(orthanc, name)) == 1 for name in REPORTED)


def test_an_interrupted_export_continues_with_the_same_bytes(
    run: Run, tmp_path: Path, orthanc: archive.Archive
) -> None:
    """Killed after its second request of several; the archive then has a part of the reports."""
    images = tmp_path / "images"
    images.mkdir()
    names = [f"k{i}" for i in range(12)]
    for name in names:
        (images / f"{name}.dcm").write_bytes(radiograph(name))
    place = finish(images, tmp_path / "p", {name: [Box(1, 2, 3, 4, 0.5)] for name in names})
    to = f"dicomweb+{orthanc.dicomweb}"
    program = f"""
import os, sys
from jobs.__main__ import main
from lobar.inference.writers import dicomweb, export
export.BATCH_BYTES = 20_000
store, calls = dicomweb.Archive.store, []
def counted(self, instances):
    calls.append(store(self, instances))
    if len(calls) == 2:
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    return calls[-1]
dicomweb.Archive.store = counted
main(sys.argv[1:])
"""
    command = ["export", "--prediction", place.url, "--to", to, "--shard", "0"]
    done = subprocess.run([sys.executable, "-c", program, *command], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    part = [name for name in names if reports_in(orthanc, name)]
    assert 0 < len(part) < len(names)
    assert export.progress(place, to).missing == [0]
    assert run(*command)[0] == 0
    folder = str(tmp_path / "out")
    assert run("export", "--prediction", place.url, "--to", folder, "--shard", 0)[0] == 0
    for name in names:
        (found,) = reports_in(orthanc, name)
        assert wado(found["00081190"]["Value"][0]) == (tmp_path / f"out/{name}.dcm").read_bytes()
