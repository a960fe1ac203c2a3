"""The container images: built by the Dockerfile, and every job run in them as in a restricted pod."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lobar.core.version import __version__
from lobar.workflow import steps

pytestmark = pytest.mark.images
ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/imaging/fixtures"
BASE = os.environ.get("BASE") or "docker.io/library/python:3.11-slim-bookworm"
SMALL = (
    "sampling=area,image_size=64,channels=4,blocks=1,depth=2,epochs=2,schedule_epochs=0,batch_size=8,"
    "positive_fraction=0.5"
)
PARAMETERS = [
    "recipe=notebook",
    f"recipe-changes={SMALL}",
    "shards=3",
    "valid-fraction=0.3",
]
# The restrictions that the workflow's templates set on a pod
RESTRICTED = [
    "--read-only", "--tmpfs=/tmp:rw,mode=1777", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    "--user=10001:10001", "--network=none", "--pull=never",
]  # fmt: skip


@dataclass(frozen=True)
class Images:
    """A container engine with both images built."""

    engine: str

    def command(self, image: str, *arguments: str, data: Path | None = None, name: str = "") -> list[str]:
        """A job's command line in a container, which sees the folder `data` at its own path."""
        options = [*RESTRICTED]
        options += [f"--volume={data}:{data}"] if data else []
        options += [f"--name={name}"] if name else []
        return [self.engine, "run", "--rm", *options, f"{image}:{__version__}", *arguments]

    def run(self, image: str, *arguments: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(image, *arguments, data=data),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def python(self, script: str, *arguments: str) -> str:
        """What a Python script prints in the image for the jobs."""
        *command, image = self.command("lobar")
        command += ["--entrypoint=python", image, "-c", script, *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

    def inspect(self, image: str) -> dict:
        done = subprocess.run(
            [self.engine, "image", "inspect", f"{image}:{__version__}"],
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)[0]


@pytest.fixture(scope="session")
def images() -> Images:
    engine = shutil.which("podman") or shutil.which("docker")
    if engine is None:
        pytest.skip("no container engine: neither podman nor docker is on PATH")
    name = Path(engine).name
    commands = ([engine, "image", "inspect", BASE], [engine, "pull", "-q", BASE])
    if all(subprocess.run(command, capture_output=True, check=False).returncode for command in commands):
        pytest.skip(f"no base image: {BASE} cannot be found or pulled; set BASE to another Python 3.11")
    make = ["make", "images", f"BASE={BASE}", f"ENGINE={name}"]
    built = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return Images(name)


@pytest.fixture(scope="session")
def data(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo data, which user 10001 of a container may write to."""
    folder = tmp_path_factory.mktemp("data")
    folder.chmod(0o777)
    options = ["--train=48", "--test=9", "--prevalence=0.5"]
    done = images.run("lobar", "demo-data", f"--out={folder}/data", *options, data=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def submission(images: Images, data: Path) -> Path:
    """The submission of the whole workflow, each step in its own image with the arguments of its pod."""
    given = dict(item.split("=", 1) for item in [*PARAMETERS, f"root={data}", f"artifacts={data}"])
    manifest = steps.read(ROOT / "workflows/full.yaml", given)
    for task in manifest.tasks:
        for step in task.expand({"tasks.plan.outputs.parameters.shards": given["shards"]}):
            image = "lobar-train" if task.name == "train" else "lobar"
            done = images.run(image, *step.command[3:], data=data)
            assert done.returncode == 0, done.stderr
    assert (data / "figures/shards").read_text() == given["shards"]
    return data / "submission.csv"


def test_the_workflow_makes_the_same_submission_in_containers_as_here(
    submission: Path, data: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    shutil.copytree(data / "data", here / "data")
    command = [sys.executable, "-m", "lobar.workflow", "workflows/full.yaml"]
    for parameter in [*PARAMETERS, f"root={here}", f"artifacts={here}"]:
        command += ["-p", parameter]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = submission.read_text()
    assert text == (here / "submission.csv").read_text()
    assert text.startswith("patientId,PredictionString\n")
    assert text.count("\n") == 10


def test_champion_and_prediction_on_tensorflow(images: Images, submission: Path, data: Path) -> None:
    """promote, and the engine of the GPU pool (on the CPU here)."""
    (model,) = (data / "models").iterdir()
    (dataset,) = (data / "datasets").iterdir()
    promote = ["promote", f"--challenger={model}", f"--dataset={dataset}", f"--registry={data}/registry"]
    promoted = images.run("lobar", *promote, data=data)
    assert promoted.returncode == 0, promoted.stderr
    plan = ["plan", f"--model={model}", f"--images={data}/data/test_images", "--shards=1", "--device=gpu"]
    planned = images.run("lobar", *plan, f"--out={data}/predictions/gpu", data=data)
    assert planned.returncode == 0, planned.stderr
    predict = ["predict", f"--prediction={data}/predictions/gpu", "--shard=0"]
    without = images.run("lobar", *predict, data=data)
    assert (without.returncode, "predict with the image that train uses" in without.stderr) == (2, True)
    predicted = images.run("lobar-train", *predict, data=data)
    assert predicted.returncode == 0, predicted.stderr


def test_export_writes_reports(images: Images, submission: Path, data: Path) -> None:
    (prediction,) = [path for path in (data / "predictions").iterdir() if (path / "submission.json").exists()]
    export = ["export", f"--prediction={prediction}", f"--to={data}/reports", "--shard=0"]
    done = images.run("lobar", *export, data=data)
    assert done.returncode == 0, done.stderr
    assert list((data / "reports").glob("*.dcm"))


def test_a_wrong_input_is_the_last_line(images: Images, data: Path) -> None:
    plan = ["plan", f"--images={data}/none", f"--model={data}/none", "--shards=1", f"--out={data}/p"]
    ended = images.run("lobar", *plan, data=data)
    assert ended.returncode == 2
    assert re.fullmatch(rf"error: (file://)?{data}/none.*", ended.stderr.splitlines()[-1])


def test_sigterm_ends_a_job_with_75(images: Images, data: Path) -> None:
    process = subprocess.Popen(
        images.command("lobar", "demo-data", f"--out={data}/long", data=data, name="lobar-stopped"),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in _until(60):
        if (data / "long").exists():
            break
    start = time.monotonic()
    subprocess.run([images.engine, "stop", "-t", "20", "lobar-stopped"], check=True, capture_output=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "interrupted (SIGTERM)" in err
    assert time.monotonic() - start < 15


SANDBOX = """
import base64, sys
from lobar.imaging.dicom import RejectedImage, network_input
from lobar.imaging.sampling import Sampling
from lobar.imaging.sandbox import Workers
with Workers(network_input, 60, 1 << 30) as sandbox:
    for file in sys.argv[1:]:
        try:
            levels, _ = network_input(base64.b64decode(file), 32, Sampling.AREA, sandbox)
            print(levels.shape)
        except RejectedImage as error:
            print(error)
"""


def test_other_encodings_are_decoded_in_worker_processes_in_a_container(images: Images) -> None:
    files = [base64.b64encode((FIXTURES / f"{name}.dcm").read_bytes()) for name in ("htj2k", "j2k_abort")]
    printed = images.python(SANDBOX, *(file.decode() for file in files))
    assert printed == "(32, 32)\nits decoder died (SIGABRT)\n"


ATTEMPTS = """
import os, pathlib, signal, socket, stat, tempfile
tempfile.TemporaryFile()
status = pathlib.Path("/proc/self/status").read_text()
assert "CapEff:\\t0000000000000000" in status and "NoNewPrivs:\\t1" in status
attempts = {
    "write the code": lambda: pathlib.Path("/app/x").write_text(""),
    "write the packages": lambda: pathlib.Path("/opt/venv/x").write_text(""),
    "write /etc": lambda: pathlib.Path("/etc/x").write_text(""),
    "become root": lambda: os.setuid(0),
    "become root's group": lambda: os.setgid(0),
    "own a file": lambda: os.chown(tempfile.mkstemp()[1], 0, 0),
    "make a device": lambda: os.mknod("/tmp/device", stat.S_IFBLK | 0o600, os.makedev(8, 0)),
    "change the root": lambda: os.chroot("/tmp"),
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "raise the priority": lambda: os.nice(-5),
    "reach the network": lambda: socket.create_connection(("192.0.2.1", 443), timeout=3),
}
assert os.getuid() == os.getgid() == 10001
for name, attempt in attempts.items():
    try:
        attempt()
        print("could:", name)
    except OSError:
        pass
"""


def test_a_container_cannot_do_what_its_job_does_not_need(images: Images) -> None:
    assert images.python(ATTEMPTS) == ""


def test_the_contents_of_the_images(images: Images) -> None:
    for name in ("lobar", "lobar-train"):
        config = images.inspect(name)["Config"]
        assert config["User"] == "10001:10001"
        assert config["Entrypoint"] == ["python", "-m", "jobs"]
        assert config["Labels"]["org.opencontainers.image.version"] == __version__
    script = "import importlib.util as i; print([n for n in {} if i.find_spec(n)])"
    assert images.python(script.format(("tensorflow", "keras", "pip", "pytest"))) == "[]\n"


def _until(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.1)
