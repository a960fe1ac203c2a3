"""Highest challenge metric that a network's output grid allows, if every cell is predicted correctly.

python -m bench.ceiling LABELS: draws the boxes of a label table on each grid and detects them again.
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

IMAGE_SIZE = 1024  # side of the labelled images, in pixels
MAP_SIZE = 256  # side of the probability map, in pixels


@dataclass(frozen=True)
class Head:
    """Output of a network: a grid of cells x cells, enlarged to the probability map by `interpolation`."""

    network: str
    cells: int
    interpolation: int


HEADS = (
    Head("notebook", 16, cv2.INTER_NEAREST),
    Head("finer", 32, cv2.INTER_LINEAR),
    Head("unet", 64, cv2.INTER_LINEAR),
    Head("encoder", 64, cv2.INTER_LINEAR),  # a unet on any encoder
)


def score(truth: Sequence[Box], head: Head) -> float:
    """Score of one positive image, if the network outputs the covered share of each cell exactly."""
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
    for box in truth:
        mask[box.y : box.y + box.height, box.x : box.x + box.width] = 1
    cells = cv2.resize(mask, (head.cells, head.cells), interpolation=cv2.INTER_AREA)
    probabilities = cv2.resize(cells, (MAP_SIZE, MAP_SIZE), interpolation=head.interpolation)
    detected = postprocess.detect(probabilities, IMAGE_SIZE, IMAGE_SIZE, NOTEBOOK)
    value = rsna_metric.image_score(truth, detected)
    assert value is not None  # only images without boxes have no score
    return value


def main(table: Path) -> None:
    """Print the mean over all positive images of a label table, for each of HEADS."""
    cv2.setNumThreads(1)
    truth = read_labels(table.read_bytes(), str(table))
    positive = [boxes for boxes in truth.values() if boxes]
    for head in HEADS:
        scores = list(ordered_map(partial(score, head=head), positive, cpus(), 4 * cpus()))
        print(f"ceiling  {head.network:10}{head.cells:3} cells per side: {np.mean(scores):.3f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make bench-ceiling LABELS=table.csv")
    main(Path(sys.argv[1]))
    console.exit_process(0)
