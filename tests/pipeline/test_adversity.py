"""Other failures: a killed process, a full disk, no memory, and records that are old, altered or corrupt."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, World, write_data

OWN_NAMESPACE = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
JOBS = f"{sys.executable} -m jobs"


def contents(folder: Path) -> dict[str, Any]:
    """Each object's bytes, of a record without its time; hidden parts of unfinished objects are left out."""
    objects: dict[str, Any] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            objects[str(path.relative_to(folder))] = path.read_bytes()
            if path.suffix == ".json":
                objects[str(path.relative_to(folder))] = {**json.loads(path.read_bytes()), "created": ""}
    return objects


@pytest.mark.parametrize("job", ["label-index", "plan", "predict", "merge-submission"])
def test_a_process_killed_at_several_moments_leaves_only_complete_objects(
    job: str, world: World, run: Run, tmp_path: Path
) -> None:
    data, prediction = world.root / "data", world.place("predictions")

    def prepare(name: str) -> tuple[Path, list[str]]:
        folder = tmp_path / name
        options: list[object] = []
        if job == "label-index":
            options = [
                "--labels",
                data / "train_labels.csv",
                "--images",
                data / "train_images",
                "--out",
                folder,
            ]
            options += ["--valid-fraction", 0.3]
        elif job == "plan":
            options = ["--model", world.place("models"), "--images", data / "test_images", "--out", folder]
            options += ["--shards", 3]
        else:
            shutil.copytree(prediction, folder)
            for result in ("submission.csv", "submission.json", "rejected.csv"):
                (folder / result).unlink()
            if job == "predict":
                shutil.rmtree(folder / "shards")
            options = [
                "--prediction",
                folder,
                *(["--shard", 1, "--max-rejected", 1] if job == "predict" else []),
            ]
        return folder, [sys.executable, "-m", "jobs", job, *map(str, options)]

    folder, command = prepare("undisturbed")
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds, expected = time.monotonic() - started, contents(folder)
    for fraction in (0.6, 0.8, 0.95):
        folder, command = prepare(f"killed-{fraction}")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(fraction * seconds)
        process.kill()
        process.wait()
        assert contents(folder).items() <= expected.items()
        status, _, stderr = run(*command[3:])
        assert status == 0, stderr
        assert contents(folder) == expected


@pytest.fixture
def full_disk(tmp_path: Path) -> str:
    """A folder where a shell script in its own namespace can mount a small disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("no full disk: unshare (util-linux) is not installed")
    mount = [*OWN_NAMESPACE, f"mount -t tmpfs -o size=64k none {folder}"]
    attempt = subprocess.run(mount, capture_output=True, text=True, check=False)
    if attempt.returncode:
        pytest.skip(f"no full disk: a tmpfs cannot be mounted in a namespace: {attempt.stderr.strip()}")
    return str(folder)


def test_a_full_disk_exits_with_75_and_leaves_only_complete_objects(full_disk: str, tmp_path: Path) -> None:
    """With free space, the same command then succeeds, with the same bytes as on a disk with enough space."""
    write_data(tmp_path)
    command = (
        f"{JOBS} label-index --labels {tmp_path}/data/train_labels.csv --images {tmp_path}/data/train_images"
    )
    script = f"""
        mount -t tmpfs -o size=64k none {full_disk}
        head -c 56k /dev/zero > {full_disk}/filler
        {command} --valid-fraction 0.3 --out {full_disk}/d; echo status $?
        ls -A {full_disk}/d
        mount -o remount,size=2m {full_disk}
        {command} --valid-fraction 0.3 --out {full_disk}/d > {tmp_path}/log; echo status $?
        cp {full_disk}/d/index-*.parquet {tmp_path}
        {command} --valid-fraction 0.3 --out {tmp_path}/d > {tmp_path}/log
    """
    done = subprocess.run([*OWN_NAMESPACE, script], capture_output=True, text=True, check=True)
    first, *files, second = done.stdout.split("\n")[:-1]
    assert (first, second) == ("status 75", "status 0"), done.stderr
    assert all(re.fullmatch(r"index-\w{64}\.parquet", name) for name in files)
    assert re.search(rf"error: file://{full_disk}/d/\S+: OSError: .* No space left on device", done.stderr)
    (index,) = tmp_path.glob("index-*.parquet")
    assert index.read_bytes() == (tmp_path / "d" / index.name).read_bytes()


def test_out_of_memory_error_names_the_limit_to_raise(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("lobar.inference.submission._checked_table", out_of_memory)
    status, _, stderr = run("merge-submission", "--prediction", world.place("predictions"))
    assert status == 2
    assert stderr.startswith(
        "error: python -m jobs merge-submission: out of memory; raise its memory limit (limits.memory"
    )
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("kind", "record", "key", "job"),
    [
        (
            "datasets",
            "manifest.json",
            "index",
            ["train", "--dataset", "{}", "--out", "{}/../m", "--recipe", "demo"],
        ),
        (
            "models",
            "release.json",
            "precisions",
            ["plan", "--model", "{}", "--images", "{}", "--shards", "1", "--out", "{}/p"],
        ),
        ("models", "training.json", "files", ["evaluate", "--model", "{}", "--dataset", "DATASET"]),
        ("predictions", "plan.json", "slices", ["predict", "--prediction", "{}", "--shard", "0"]),
        ("predictions", "plan.json", "inputs", ["predict", "--prediction", "{}", "--shard", "0"]),
        ("predictions", "shards/0001.json", "table", ["merge-submission", "--prediction", "{}"]),
    ],
)
def test_a_record_without_a_required_field_is_named(
    world: World, run: Run, tmp_path: Path, kind: str, record: str, key: str, job: list[str]
) -> None:
    folder = tmp_path / kind
    shutil.copytree(world.place(kind), folder)
    altered = json.loads((folder / record).read_text())
    del altered[key]
    (folder / record).write_text(json.dumps(altered))
    filled = [
        part.replace("{}", str(folder)).replace("DATASET", str(world.place("datasets"))) for part in job
    ]
    status, _, stderr = run(*filled)
    assert status == 2, stderr
    line = stderr.splitlines()[-1]
    assert line.startswith(f"error: file://{folder}/{record}: ")
    assert f"`{key}`" in line
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JSON record ("),
        (b"{", "not a JSON record ("),
        (b"\xff\xfe", "not a JSON record ("),
        (b"[]", "a record of format None; this lobar reads 1; "),
        (b"null", "a record of format None; this lobar reads 1; "),
        (b'{"a": 1}', "a record of format None; this lobar reads 1; "),
        (b'"text"', "a record of format None; this lobar reads 1; "),
        (b'{"format": 1}', "not a record of plan ("),
    ],
)
def test_a_file_that_is_not_a_record_is_named(
    world: World, run: Run, tmp_path: Path, content: bytes, message: str
) -> None:
    folder = tmp_path / "p"
    shutil.copytree(world.place("predictions"), folder)
    (folder / "plan.json").write_bytes(content)
    status, _, stderr = run("predict", "--prediction", folder, "--shard", 0)
    assert status == 2
    assert stderr.splitlines()[-1].startswith(f"error: file://{folder}/plan.json: {message}")
