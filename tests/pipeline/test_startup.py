"""A job imports only the packages that it uses."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import JOBS
from tests.conftest import World
from tests.support.prediction import FOUND, finish, write_images

# Top-level packages that take a tenth of a second or more to import
HEAVY = {
    "aiohttp", "botocore", "cv2", "fsspec", "gcsfs", "highdicom", "jinja2", "keras", "matplotlib", "nncf",
    "numpy", "openvino", "pandas", "pyarrow", "pydicom", "s3fs", "scipy", "skimage", "sklearn", "tensorflow",
    "yaml",
}  # fmt: skip
PROGRAM = """
import sys
from jobs.__main__ import main
status = main(sys.argv[1:])
print(*sorted({name.split(".")[0] for name in sys.modules}), len(sys.modules), file=sys.stderr)
sys.exit(status)
"""


def loaded(*arguments: object) -> tuple[set[str], int]:
    """The heavy packages that a job loaded, and how many modules in all."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *packages, count = done.stderr.splitlines()[-1].split()
    return HEAVY & {*packages}, int(count)


@pytest.mark.parametrize("job", JOBS)
def test_help_loads_no_library(job: str) -> None:
    heavy, count = loaded(job, "--help")
    assert not heavy
    assert count < 250  # Typer and the standard library


def test_jobs_on_a_folder_load_what_they_use(world: World, tmp_path: Path) -> None:
    images = f"--images={world.root}/data/test_images"
    planned = ["plan", images, f"--model={world.place('models')}", f"--out={tmp_path}/p", "--shards=1"]
    tables = {"numpy", "pyarrow", "fsspec", "cv2", "pydicom", "openvino"}
    assert loaded(*planned)[0] <= tables
    assert loaded("predict", f"--prediction={tmp_path}/p", "--shard=0", "--max-rejected=0.2")[0] == tables
    assert loaded("merge-submission", f"--prediction={tmp_path}/p")[0] <= tables - {
        "openvino",
        "cv2",
        "pydicom",
    }


def test_export_loads_no_network(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    place = finish(tmp_path / "images", tmp_path / "p", FOUND)
    options = [f"--prediction={place.url}", f"--to={tmp_path}/out", "--shard=0"]
    assert loaded("export", *options)[0] == {"numpy", "pyarrow", "fsspec", "cv2", "pydicom", "highdicom"}
