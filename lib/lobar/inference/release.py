"""The record that makes a model usable by others: how to predict with it."""

from dataclasses import dataclass
from typing import ClassVar

from lobar.storage.records import Record
from lobar.training.recipe import Recipe
from lobar.training.record import ModelFiles


@dataclass(frozen=True)
class OperatingPoint:
    """How a probability map becomes boxes.

    threshold: a pixel belongs to a box if its probability is above it, 0..1.
    min_area: boxes smaller than this share of the image are dropped, 0..1.
    shrink: sides of every box are multiplied by it about the centre, above 0, at most 1.
    min_image_score: an image that scores less has no box at all, 0..1.
    """

    threshold: float
    min_area: float
    shrink: float
    min_image_score: float


NOTEBOOK = OperatingPoint(threshold=0.5, min_area=0.0, shrink=1.0, min_image_score=0.0)


@dataclass(frozen=True)
class EvaluationInputs:
    """What a model was evaluated on: the digest of its training, and a dataset's URL and index."""

    training: str
    dataset: str
    index: str
    lobar: str


@dataclass(frozen=True)
class Offer:
    """A precision that a model may predict in, and the CPU features it was judged with (none: any CPU)."""

    tuned: OperatingPoint
    notebook: OperatingPoint
    cpu_features: list[str]


@dataclass(frozen=True, kw_only=True)
class Release(Record):
    """A released model: its files, its recipe, and for each precision that it offers the operating points.

    card: the SHA-256 of its model card; empty in records of older versions.
    """

    MADE_BY: ClassVar[str] = "evaluate"

    inputs: EvaluationInputs
    files: ModelFiles
    recipe: Recipe
    precisions: dict[str, Offer]
    card: str = ""
