"""How well boxes survive a network's head even when all of its cells are right.

python -m bench.ceiling LABELS: the truth of a label table is drawn at each head's resolution and read back.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from lobar.core import console
from lobar.core.boxes import Box
from lobar.core.concurrency import cpus, ordered_map
from lobar.data.labels import read_labels
from lobar.evaluation import rsna_metric
from lobar.inference import postprocess
from lobar.inference.release import NOTEBOOK

SIDE = 1024  # pixels of the images that the boxes are drawn on
SIZE = 256  # of the network's map


@dataclass(frozen=True)
class Head:
    """A network's grid of so many cells a side, and whether it grows smoothly to the map or is repeated."""

    network: str
    cells: int
    smooth: bool


HEADS = (Head("notebook", 16, False), Head("finer", 32, True), Head("unet", 64, True))


def score(boxes: Sequence[Box], head: Head) -> float:
    """The challenge's score of one positive image for what is read back from its own truth."""
    truth = np.zeros((SIDE, SIDE), np.float32)
    for box in boxes:
        truth[box.y : box.y + box.height, box.x : box.x + box.width] = 1
    covered = cv2.resize(truth, (head.cells, head.cells), interpolation=cv2.INTER_AREA)
    way = cv2.INTER_LINEAR if head.smooth else cv2.INTER_NEAREST
    found = postprocess.detect(cv2.resize(covered, (SIZE, SIZE), interpolation=way), SIDE, SIDE, NOTEBOOK)
    value = rsna_metric.image_score(boxes, found)
    assert value is not None  # there is truth
    return value


def main(table: Path) -> None:
    """Print each head's mean over all positive patients of a table, at the networks' (256, 32, 2, 4)."""
    cv2.setNumThreads(1)
    truth, _ = read_labels(table.read_bytes(), str(table))
    positive = [boxes for boxes in truth.values() if boxes]
    for head in HEADS:
        scores = list(ordered_map(partial(score, head=head), positive, cpus(), 4 * cpus()))
        print(f"ceiling  {head.network:10}{head.cells:3} cells a side: {np.mean(scores):.3f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make bench-ceiling LABELS=table.csv")
    main(Path(sys.argv[1]))
    console.exit_process(0)
