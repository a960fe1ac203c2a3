"""Fuzzes the DICOM reader with mutated files: `python -m tests.support.fuzz SECONDS [SEED]`.

Any file must give an image or a RejectedImage. A file that causes another exception, a hang, a crash or too
much memory is a finding and is saved in runs/fuzz. The sandboxed decoders are an exception: they reject such
a file, and it is only counted.
"""

import hashlib
import io
import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from lobar.core.concurrency import cpus
from lobar.imaging.dicom import RejectedImage, network_input
from lobar.imaging.loader import DECODER_MEMORY
from lobar.imaging.pixels import decodes_in_process
from lobar.imaging.sampling import Sampling
from lobar.imaging.sandbox import WorkerLostError, Workers
from tests.conftest import make_dicom, smooth_noise

FINDINGS = Path("runs/fuzz")
FIXTURES = Path(__file__).parents[1] / "imaging/fixtures"
HEADER = 1500
SECONDS = 10.0
SYNTAXES: tuple[UID, ...] = (
    JPEGBaseline8Bit, ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian,
    RLELossless, JPEGLSLossless, JPEG2000Lossless,
)  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """A valid file and the name of its encoding."""

    name: str
    data: bytes


def seeds() -> list[Seed]:
    """Small files in every encoding that can be generated, and the real images if available."""
    pixels = smooth_noise(64, 48)
    files = []
    for syntax in SYNTAXES:
        for stored in (pixels, pixels.astype(np.uint16) * 16):
            if stored.itemsize == 1 or syntax != JPEGBaseline8Bit:
                window = {"WindowCenter": 100, "WindowWidth": 90, "RescaleSlope": 1, "RescaleIntercept": 0}
                data = make_dicom(stored, syntax, BodyPartExamined="CHEST", Modality="CR", **window)
                files.append(Seed(syntax.name, data))
    files.append(Seed(JPEGBaseline8Bit.name, make_dicom(pixels)))
    files += [Seed("HTJ2K", path.read_bytes()) for path in FIXTURES.glob("htj2k*.dcm")]
    if folder := os.environ.get("LOBAR_REAL_DATA"):
        images = sorted(Path(folder, "rsna_sample/stage_2_train_images").glob("*.dcm"))
        files += [Seed("real image", image.read_bytes()) for image in images]
    return files


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The file with one to four random changes, half of them in its header."""
    body = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        end = min(HEADER, len(body)) if rng.random() < 0.5 else len(body)
        at, length = rng.randrange(end), rng.randint(1, 16)
        match rng.randrange(6):
            case 0:
                body[at] ^= 1 << rng.randrange(8)
            case 1:
                body[at : at + length] = rng.randbytes(length)
            case 2:
                body[at : at + 4] = rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF)).to_bytes(4, "little")
            case 3:
                del body[at : at + length * rng.randint(1, 30)]
            case 4:
                body[at:at] = body[rng.randrange(len(body)) :][: length * 8]
            case 5:
                body[at:] = body[at : max(at, len(body) - rng.randrange(1, 200))]
        if len(body) < HEADER // 10:
            break
    return bytes(body)


def outcome_of(data: bytes) -> str:
    """Read a file: `read`, or the start of its rejection."""
    try:
        levels, header = network_input(data, 32, Sampling.AREA)
    except RejectedImage as rejected:
        return str(rejected).split(";")[0].split(":")[0].strip("0123456789 ")
    assert levels.shape == (32, 32)
    assert levels.dtype == np.uint8
    assert header.rows > 0 < header.columns
    return "read"


def search(workers: Workers[..., str], until: float, seed: int, counts: Counter[str]) -> None:
    """Mutate and read files until the time `until`."""
    rng = random.Random(seed)
    valid = seeds()
    while time.monotonic() < until:
        original = rng.choice(valid)
        data = mutated(original.data, rng)
        try:
            outcome = workers(data)
        except WorkerLostError as error:
            outcome = f"its decoder {error}"
            if reads_in_process(data):
                save(data, f"{original.name}: {error}")
        except Exception as error:  # the reader must not raise this
            outcome = f"FINDING: {type(error).__name__}"
            save(data, f"{original.name}: {error!r}")
        counts[outcome] += 1


def reads_in_process(data: bytes) -> bool:
    """Whether a job would decode the file without the sandbox."""
    try:
        return decodes_in_process(pydicom.dcmread(io.BytesIO(data)))
    except Exception:  # raised by the parser, which is not sandboxed
        return True


def save(data: bytes, message: str) -> None:
    """Save a finding."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    file = FINDINGS / f"{hashlib.sha256(data).hexdigest()[:12]}.dcm"
    file.write_bytes(data)
    print(f"finding: {message}: {file}", flush=True)  # noqa: T201


def main(seconds: float, seed: int) -> None:
    """Search with one process per CPU, and print how often each outcome occurred."""
    counts: Counter[str] = Counter()
    until = time.monotonic() + seconds
    with Workers(outcome_of, SECONDS, DECODER_MEMORY) as workers, ThreadPoolExecutor(cpus()) as pool:
        searches = [pool.submit(search, workers, until, seed + n, counts) for n in range(cpus())]
        for future in searches:
            future.result()
    for outcome, count in counts.most_common():
        print(f"{count:9,}  {outcome}")  # noqa: T201
    print(f"{counts.total():9,}  files in all")  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
