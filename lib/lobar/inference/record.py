"""The records of plan, predict and merge-submission."""

from dataclasses import dataclass
from typing import ClassVar

from lobar.core.rejections import Rejection
from lobar.data.record import Shift
from lobar.inference.release import OperatingPoint
from lobar.storage import records
from lobar.storage.records import Record
from lobar.training.recipe import Recipe
from lobar.training.record import ModelFiles


@dataclass(frozen=True)
class PlanInputs:
    """All that the rows of a prediction depend on, and how many images and shards there are.

    reuse: the earlier prediction whose rows are taken where they would be the same; empty: none.
    """

    images: str
    images_digest: str
    count: int
    shards: int
    model: str
    files: ModelFiles
    recipe: Recipe
    operating_point: OperatingPoint
    device: str
    precision: str
    cpu_features: list[str]
    lobar: str
    any_body_part: bool = False
    reuse: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan(Record):
    """The record of plan: the SHA-256 of each shard's list of images, and their drift from the training's.

    reused: how many rows are taken from an earlier prediction.
    """

    MADE_BY: ClassVar[str] = "plan"

    inputs: PlanInputs
    slices: list[str]
    other_objects: list[str]
    drift: list[Shift]
    reused: int = 0

    @property
    def digest(self) -> str:
        """What a shard's record carries to show that it belongs to this plan."""
        return records.digest([self.inputs, self.slices])


@dataclass(frozen=True)
class ShardInputs:
    """The digest of a plan and the number of a shard."""

    plan: str
    shard: int


@dataclass(frozen=True, kw_only=True)
class Shard(Record):
    """The record of predict: the SHA-256 of its table, its rows, those with a box, and rejections."""

    MADE_BY: ClassVar[str] = "predict"

    inputs: ShardInputs
    table: str
    rows: int
    with_boxes: int
    rejected: list[Rejection]


@dataclass(frozen=True)
class SubmissionInputs:
    """The digest of a plan, and the SHA-256 of the table of each of its shards."""

    plan: str
    tables: list[str]


@dataclass(frozen=True, kw_only=True)
class Submission(Record):
    """The record of merge-submission: the SHA-256 of the CSV, counts as in a shard's, and the plan."""

    MADE_BY: ClassVar[str] = "merge-submission"

    inputs: SubmissionInputs
    submission: str
    rows: int
    with_boxes: int
    rejected: list[Rejection]
    plan: PlanInputs


@dataclass(frozen=True)
class ExportInputs:
    """The SHA-256 of a submission, a shard of its plan, and the URL that its reports go to."""

    submission: str
    shard: int
    to: str


@dataclass(frozen=True, kw_only=True)
class ExportedShard(Record):
    """The record of export: where each row of a shard went.

    table: the SHA-256 of the list of reports. rejected: how many images predict rejected, which have no
    report. without_report: images that a report cannot refer to.
    """

    MADE_BY: ClassVar[str] = "export"

    inputs: ExportInputs
    table: str
    rows: int
    reports: int
    with_boxes: int
    rejected: int
    without_report: list[Rejection]
