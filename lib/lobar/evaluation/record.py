"""The record of evaluate, and its verdict on a model in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from lobar.core.rejections import Rejection
from lobar.evaluation.analysis import Subset
from lobar.evaluation.bootstrap import Interval
from lobar.inference.release import EvaluationInputs, OperatingPoint
from lobar.storage.records import Record

# How much challenge metric a precision below float32 may lose: by the estimate, and by its 95 % interval
MAX_COST = 0.002
MAX_CERTAIN_COST = 0.02

SYSTEMS = MappingProxyType(
    {
        "tuned": "network, tuned operating point",
        "notebook": "network, the notebook's operating point",
        "baseline": "no network: threshold and shape",
        "empty": "always empty",
    }
)


@dataclass(frozen=True)
class Trial:
    """A precision of the network's arithmetic: its own operating point, tuned on all images, and its metric.

    `metric` is cross-validated like that of `tuned`; `gain` is its paired difference from float32's.
    """

    point: OperatingPoint
    metric: Interval
    gain: Interval

    @property
    def offered(self) -> bool:
        """Whether it costs at most MAX_COST here, and with 95 % certainty less than MAX_CERTAIN_COST."""
        gain, low = self.gain.metric, self.gain.low
        return gain is not None and low is not None and gain >= -MAX_COST and low > -MAX_CERTAIN_COST


@dataclass(frozen=True)
class MaskMetrics:
    """The notebook's own metrics."""

    accuracy: float
    mean_iou: float


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """How good a model is on the validation images of a dataset.

    scores, report: the SHA-256 of the table with each image's scores, and of the report. systems: the metric
    of each of SYSTEMS, with the network in float32. precisions: float32 and the others that the CPU supports.
    cpu_features: the features of that CPU. by_iou: the metric at each IoU threshold. subsets: the metric by
    kind of image. empty_mask: the notebook's own metrics of a mask without any pixel. rejected: validation
    images that cannot be decoded.
    """

    MADE_BY: ClassVar[str] = "evaluate"

    inputs: EvaluationInputs
    scores: str
    report: str
    images: int
    positive: int
    systems: dict[str, Interval]
    precisions: dict[str, Trial]
    cpu_features: list[str]
    roc_area: float | None
    by_iou: dict[str, float]
    subsets: dict[str, Subset]
    empty_mask: MaskMetrics
    rejected: list[Rejection]


def verdict(systems: Mapping[str, Interval]) -> str:
    """The conclusion from the intervals, in one line."""
    tuned, baseline = systems["tuned"], systems["baseline"]
    if not systems["empty"].counted:
        return "cannot be judged: no validation image has a box"
    if (tuned.low or 0) > (baseline.high or 0):
        return "better than a detector without a network"
    return "not shown to be better than a detector without a network"
