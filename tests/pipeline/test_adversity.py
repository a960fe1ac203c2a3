"""What else goes wrong around a job: no room, no memory, records of another time or another hand."""

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
    """Each object's bytes, a record's without its time; parts of what was not finished do not count."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            found[str(path.relative_to(folder))] = path.read_bytes()
            if path.suffix == ".json":
                found[str(path.relative_to(folder))] = {**json.loads(path.read_bytes()), "created": ""}
    return found


@pytest.mark.parametrize("job", ["label-index", "plan", "predict", "merge-submission"])
def test_a_process_killed_at_several_moments_leaves_only_whole_objects(
    job: str, world: World, tmp_path: Path
) -> None:
    data, given = world.root / "data", world.place("predictions")

    def place_of(name: str) -> tuple[Path, list[str]]:
        place = tmp_path / name
        options: list[object] = []
        if job == "label-index":
            options = [
                "--labels",
                data / "train_labels.csv",
                "--images",
                data / "train_images",
                "--out",
                place,
            ]
            options += ["--valid-fraction", 0.3]
        elif job == "plan":
            options = ["--model", world.place("models"), "--images", data / "test_images", "--out", place]
            options += ["--shards", 3]
        else:
            shutil.copytree(given, place)
            for made in ("submission.csv", "submission.json", "rejected.csv"):
                (place / made).unlink()
            if job == "predict":
                shutil.rmtree(place / "shards")
            options = [
                "--prediction",
                place,
                *(["--shard", 1, "--max-rejected", 1] if job == "predict" else []),
            ]
        return place, [sys.executable, "-m", "jobs", job, *map(str, options)]

    place, command = place_of("undisturbed")
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds, wanted = time.monotonic() - started, contents(place)
    for share in (0.6, 0.8, 0.95):
        place, command = place_of(f"killed-{share}")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(share * seconds)
        process.kill()
        process.wait()
        assert contents(place).items() <= wanted.items()
        subprocess.run(command, check=True, capture_output=True)
        assert contents(place) == wanted


@pytest.fixture
def full_disk(tmp_path: Path) -> str:
    """A folder for a shell line of its own to mount a small disk on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("no full disk: unshare (util-linux) is not here")
    mount = [*OWN_NAMESPACE, f"mount -t tmpfs -o size=64k none {folder}"]
    tried = subprocess.run(mount, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no full disk: a tmpfs cannot be mounted in a namespace here: {tried.stderr.strip()}")
    return str(folder)


def test_a_full_disk_ends_with_75_and_leaves_nothing_half(full_disk: str, tmp_path: Path) -> None:
    """With room the same command then goes on to the bytes that it would have made at once."""
    write_data(tmp_path)
    command = (
        f"{JOBS} label-index --labels {tmp_path}/data/train_labels.csv --images {tmp_path}/data/train_images"
    )
    line = f"""
        mount -t tmpfs -o size=64k none {full_disk}
        head -c 56k /dev/zero > {full_disk}/filler
        {command} --valid-fraction 0.3 --out {full_disk}/d; echo status $?
        ls -A {full_disk}/d
        mount -o remount,size=2m {full_disk}
        {command} --valid-fraction 0.3 --out {full_disk}/d > {tmp_path}/log; echo status $?
        cp {full_disk}/d/index-*.parquet {tmp_path}
        {command} --valid-fraction 0.3 --out {tmp_path}/d > {tmp_path}/log
    """
    done = subprocess.run([*OWN_NAMESPACE, line], capture_output=True, text=True, check=True)
    first, *files, second = done.stdout.split("\n")[:-1]
    assert (first, second) == ("status 75", "status 0"), done.stderr
    assert all(re.fullmatch(r"index-\w{64}\.parquet", name) for name in files)
    assert re.search(rf"error: file://{full_disk}/d/\S+: OSError: .* No space left on device", done.stderr)
    (index,) = tmp_path.glob("index-*.parquet")
    assert index.read_bytes() == (tmp_path / "d" / index.name).read_bytes()


def test_want_of_memory_says_what_to_raise(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("lobar.inference.submission._checked_table", no_room)
    status, _, said = run("merge-submission", "--prediction", world.place("predictions"))
    assert status == 2
    assert said.startswith(
        "error: python -m jobs merge-submission: out of memory; give it more (limits.memory"
    )
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("kind", "record", "key", "job"),
    [
        ("datasets", "manifest.json", "index", ["train", "--dataset", "{}", "--out", "{}/../m"]),
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
def test_a_record_of_another_version_or_hand_is_named(
    world: World, run: Run, tmp_path: Path, kind: str, record: str, key: str, job: list[str]
) -> None:
    place = tmp_path / kind
    shutil.copytree(world.place(kind), place)
    altered = json.loads((place / record).read_text())
    del altered[key]
    (place / record).write_text(json.dumps(altered))
    filled = [part.replace("{}", str(place)).replace("DATASET", str(world.place("datasets"))) for part in job]
    status, _, said = run(*filled)
    assert status == 2, said
    line = said.splitlines()[-1]
    assert line.startswith(f"error: file://{place}/{record}: ")
    assert f"`{key}`" in line
    assert "Traceback" not in said


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": 1}', b'"text"'])
def test_a_record_that_is_none_is_named(world: World, run: Run, tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "p"
    shutil.copytree(world.place("predictions"), place)
    (place / "plan.json").write_bytes(content)
    status, _, said = run("predict", "--prediction", place, "--shard", 0)
    assert status == 2
    assert said.splitlines()[-1].startswith(f"error: file://{place}/plan.json: not a ")
