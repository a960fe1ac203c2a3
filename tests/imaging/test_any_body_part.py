"""Chest radiographs whose headers name another body part or modality are read if the user says so."""

import json
from pathlib import Path

import pytest

from lobar.imaging.dicom import RejectedImage, header, network_input
from lobar.imaging.sampling import Sampling
from tests.conftest import Run, World, make_dicom, smooth_noise

ELSEWHERE = [
    {"BodyPartExamined": "TORAX", "Modality": "CR"},
    {"BodyPartExamined": "BRUST", "Modality": "SC"},
    {"BodyPartExamined": "POITRINE", "Modality": "XR"},
    {"BodyPartExamined": "RIBCAGE", "Modality": ""},
]


@pytest.mark.parametrize("elements", ELSEWHERE, ids=lambda elements: elements["BodyPartExamined"])
def test_other_names_of_a_chest_are_read_with_the_option_only(elements: dict[str, str]) -> None:
    data = make_dicom(smooth_noise(64, 64), **elements)
    with pytest.raises(RejectedImage, match=r"unless any body part|only radiographs"):
        header(data)
    read = header(data, any_body_part=True)
    assert network_input(data, 64, Sampling.AREA, any_body_part=True)[1] == read


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "MG"])
def test_what_is_never_a_radiograph_stays_rejected(modality: str) -> None:
    data = make_dicom(smooth_noise(64, 64), Modality=modality)
    with pytest.raises(RejectedImage, match=f"Modality is {modality}"):
        header(data, any_body_part=True)


def test_a_dataset_and_a_plan_record_the_option(world: World, run: Run, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = ["patientId,x,y,width,height,Target"]
    for i in range(12):
        data = make_dicom(smooth_noise(64, 64, i), **ELSEWHERE[i % 4])
        (tmp_path / f"images/p{i}.dcm").write_bytes(data)
        rows.append(f"p{i},,,,,0")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    index = ["label-index", "--labels", tmp_path / "labels.csv", "--images", tmp_path / "images",
             "--out", tmp_path / "d", "--valid-fraction", 0.5]  # fmt: skip
    plan = [
        "plan",
        "--images",
        tmp_path / "images",
        "--model",
        world.place("models"),
        "--out",
        tmp_path / "p",
    ]
    predict = ["predict", "--prediction", tmp_path / "p", "--shard", 0]

    status, _, error = run(*index)
    assert (status, "only chests are supported, unless any body part is allowed" in error) == (2, True)
    assert run(*index, "--any-body-part")[0] == 0
    assert json.loads((tmp_path / "d/manifest.json").read_text())["inputs"]["any_body_part"] is True
    assert run(*plan, "--any-body-part")[0] == 0
    assert json.loads((tmp_path / "p/plan.json").read_text())["inputs"]["any_body_part"] is True
    assert run(*predict)[0] == 0
    for job in (index, plan):
        extra = ["--max-rejected", 1] if job is index else []
        status, _, error = run(*job, *extra)
        assert (status, "any_body_part was True, now False" in error) == (2, True)
    assert run(*plan[:-1], tmp_path / "other")[0] == 0
    status, _, error = run("predict", "--prediction", tmp_path / "other", "--shard", 0)
    assert (status, "12 of 12 images of shard 0 rejected" in error) == (2, True)
