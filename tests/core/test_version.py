"""Two states of the code never share a version: a shard rejects a plan that other code made."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def version(checkout: Path) -> str:
    line = "from lobar.core.version import code_version; print(code_version())"
    environment = {"PYTHONPATH": str(checkout / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", line]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("lib", "jobs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    return tmp_path


def test_the_version_is_that_of_an_equal_checkout(checkout: Path) -> None:
    assert version(checkout) == version(ROOT)


@pytest.mark.parametrize(
    "file",
    [
        "lib/lobar/core/boxes.py",
        "lib/lobar/inference/postprocess.py",
        "lib/lobar/evaluation/report/report.html",
        "lib/lobar/evaluation/report/model_card.md",
        "lib/lobar/evaluation/report/style.css",
        "lib/lobar/training/recipes/rsna.yaml",
        "jobs/predict.py",
    ],
)
def test_a_change_of_any_source_file_is_another_version(checkout: Path, file: str) -> None:
    before = version(checkout)
    with (checkout / file).open("a") as source:
        source.write("\n")
    assert version(checkout) != before


def test_a_moved_file_is_another_version(checkout: Path) -> None:
    before = version(checkout)
    (checkout / "jobs/summary.py").rename(checkout / "jobs/other.py")
    assert version(checkout) != before
