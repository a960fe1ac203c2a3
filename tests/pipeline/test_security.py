"""Untrusted text in a file, a table or a model reaches no log, no shell and no interpreter."""

import re
from pathlib import Path

import typer
import yaml
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from jobs.__main__ import JOBS, command
from tests.conftest import Run, World, make_dicom, smooth_noise

PATIENT = "DOE^JOHN"
# elements that may contain patient data, and elements that lobar reads
IDENTIFYING = {
    "PatientName": PATIENT,
    "PatientID": PATIENT,
    "PatientComments": PATIENT,
    "InstitutionName": PATIENT,
    "StudyDescription": PATIENT,
    "ViewPosition": PATIENT,
    "AccessionNumber": PATIENT,
}
UNREADABLE: list[dict[str, object]] = [
    {"Modality": PATIENT},
    {"BodyPartExamined": PATIENT},
    {"PhotometricInterpretation": PATIENT},
    {"WindowCenter": "1", "WindowWidth": "0", "VOILUTFunction": PATIENT},
]


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_no_header_value_reaches_a_log_or_an_object(world: World, run: Run, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    rows = ["patientId,x,y,width,height,Target"]
    for i in range(24):
        syntax = (JPEGBaseline8Bit, RLELossless, JPEG2000Lossless)[i % 3]
        data = make_dicom(smooth_noise(128, 96, i), syntax, **IDENTIFYING)
        (images / f"p{i}.dcm").write_bytes(data if i % 8 else data[:-50])
        rows.append(f"p{i},,,,,0")
    for i, elements in enumerate(UNREADABLE, start=24):
        data = make_dicom(smooth_noise(128, 96, i), **IDENTIFYING | elements)
        (images / f"p{i}.dcm").write_bytes(data)
        rows.append(f"p{i},,,,,0")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    labels = ["--labels", tmp_path / "labels.csv", "--images", images, "--valid-fraction", 0.3]
    plan = ["plan", "--model", world.place("models"), "--images", images, "--shards", 1]
    results = [
        run("label-index", *labels, "--out", out / "rejected"),
        run("label-index", *labels, "--out", out / "d", "--max-rejected", 1),
        run(*plan, "--out", out / "p"),
        run("predict", "--prediction", out / "p", "--shard", 0),
        run("predict", "--prediction", out / "p", "--shard", 0, "--max-rejected", 1),
        run("merge-submission", "--prediction", out / "p"),
    ]
    assert [status for status, _, _ in results] == [2, 0, 0, 2, 0, 0]
    for text in ("DOE", "JOHN"):
        assert all(text not in output + errors for _, output, errors in results)
        assert text.encode() not in all_bytes(out)


def test_no_job_takes_a_secret_as_an_option() -> None:
    for job in JOBS:
        options = [str(option.name) for option in typer.main.get_command(command(job)).params]
        assert options
        assert not [name for name in options if re.search("secret|password|token|key|credential", name)]


def test_workflows_pass_parameters_to_programs_and_never_to_a_shell() -> None:
    for path in Path("workflows").glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            for container in values_of(document, "container"):
                assert container["command"] == ["python", "-m", "jobs"], path
                assert all(argument.startswith(("--", *JOBS)) for argument in container["args"]), path
            assert not list(values_of(document, "script")), path


def values_of(node: object, key: str) -> list[dict[str, list[str]]]:
    """All values of a key, at any depth."""
    if isinstance(node, dict):
        return [
            *([node[key]] if key in node else []),
            *(x for value in node.values() for x in values_of(value, key)),
        ]
    return [x for value in node for x in values_of(value, key)] if isinstance(node, list) else []
