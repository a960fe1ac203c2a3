"""Read mutated files for a while: `python -m tests.support.fuzz SECONDS [SEED]`.

Whatever the file, the reader gives an image or a rejection. What makes it raise anything else, hang, crash or
take all memory is a find, kept in runs/fuzz; of the decoders that work in a process of their own that is no
find but counted, since it rejects the file.
"""

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
from lobar.imaging.pixels import harmless
from lobar.imaging.sampling import Sampling
from lobar.imaging.sandbox import LostError, Workers
from lobar.storage import records
from tests.conftest import make_dicom, smooth_noise

FINDS = Path("runs/fuzz")
FIXTURES = Path(__file__).parents[1] / "imaging/fixtures"
HEADER = 1500
SECONDS = 10.0
SYNTAXES: tuple[UID, ...] = (
    JPEGBaseline8Bit, ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian,
    RLELossless, JPEGLSLossless, JPEG2000Lossless,
)  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """A good file and its encoding's name."""

    name: str
    data: bytes


def seeds() -> list[Seed]:
    """Small files in every encoding that can be made here, and the real films where they are."""
    pixels = smooth_noise(64, 48)
    found = []
    for syntax in SYNTAXES:
        for stored in (pixels, pixels.astype(np.uint16) * 16):
            if stored.itemsize == 1 or syntax != JPEGBaseline8Bit:
                window = {"WindowCenter": 100, "WindowWidth": 90, "RescaleSlope": 1, "RescaleIntercept": 0}
                data = make_dicom(stored, syntax, BodyPartExamined="CHEST", Modality="CR", **window)
                found.append(Seed(syntax.name, data))
    found.append(Seed(JPEGBaseline8Bit.name, make_dicom(pixels)))
    found += [Seed("HTJ2K", path.read_bytes()) for path in FIXTURES.glob("htj2k*.dcm")]
    if folder := os.environ.get("LOBAR_REAL_DATA"):
        films = sorted(Path(folder, "rsna_sample/stage_2_train_images").glob("*.dcm"))
        found += [Seed("a real film", film.read_bytes()) for film in films]
    return found


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The file with up to four mistakes, half of them in its header."""
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


def judged(data: bytes) -> str:
    """What the reader makes of a file: `read`, or the beginning of its rejection."""
    try:
        levels, header = network_input(data, 32, Sampling.AREA)
    except RejectedImage as rejected:
        return str(rejected).split(";")[0].split(":")[0].strip("0123456789 ")
    assert levels.shape == (32, 32)
    assert levels.dtype == np.uint8
    assert header.rows > 0 < header.columns
    return "read"


def search(workers: Workers[..., str], until: float, seed: int, counts: Counter[str]) -> None:
    """Mutate and read until it is time."""
    rng = random.Random(seed)
    good = seeds()
    while time.monotonic() < until:
        chosen = rng.choice(good)
        data = mutated(chosen.data, rng)
        try:
            outcome = workers(data)
        except LostError as error:
            outcome = f"its decoder {error}"
            if in_own_process(data):
                keep(data, f"{chosen.name}: {error}")
        except Exception as error:  # what the reader must not raise
            outcome = f"FIND: {type(error).__name__}"
            keep(data, f"{chosen.name}: {error!r}")
        counts[outcome] += 1


def in_own_process(data: bytes) -> bool:
    """Whether a job would read it without a process apart."""
    try:
        return harmless(pydicom.dcmread(io.BytesIO(data)))
    except Exception:  # the parser's own, which works in the job
        return True


def keep(data: bytes, what: str) -> None:
    """Keep a find."""
    FINDS.mkdir(parents=True, exist_ok=True)
    file = FINDS / f"{records.sha256(data)[:12]}.dcm"
    file.write_bytes(data)
    print(f"find: {what}: {file}", flush=True)  # noqa: T201


def main(seconds: float, seed: int) -> None:
    """Search on as many processes as there are CPUs, and print how often what came of it."""
    counts: Counter[str] = Counter()
    until = time.monotonic() + seconds
    with Workers(judged, SECONDS, DECODER_MEMORY) as workers, ThreadPoolExecutor(cpus()) as pool:
        searches = [pool.submit(search, workers, until, seed + n, counts) for n in range(cpus())]
        for each in searches:
            each.result()
    for outcome, count in counts.most_common():
        print(f"{count:9,}  {outcome}")  # noqa: T201
    print(f"{counts.total():9,}  files in all")  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
