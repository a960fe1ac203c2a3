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
# The metric can tell two precisions apart only where float32 hits something. If none of 30 hits is lost, at
# most a tenth of all is, with 95 % certainty: 0.02 of a metric of 0.2. Source: the rule of three (Hanley and
# Lippman-Hand, If nothing goes wrong, is everything all right?, 1983)
MIN_HITS = 30

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

    `metric` is cross-validated like that of `tuned`; `gain` is its paired difference from float32's. `hits`
    are the patients with an image on which float32 scores above 0; 0 in records of older versions.
    """

    point: OperatingPoint
    metric: Interval
    gain: Interval
    hits: int = 0

    @property
    def offered(self) -> bool:
        """Whether there is evidence that it costs next to nothing."""
        return not self.objection

    @property
    def objection(self) -> str:
        """Why it is not offered, empty if it is.

        It must cost at most MAX_COST here, with 95 % certainty less than MAX_CERTAIN_COST, and MIN_HITS are
        needed for that.
        """
        gain, low = self.gain.metric, self.gain.low
        if self.hits < MIN_HITS or gain is None or low is None:
            return (
                f"too little evidence: float32 hits opacities of {self.hits} patients, {MIN_HITS} are needed"
            )
        if gain < -MAX_COST:
            return f"it costs more than {MAX_COST:g}"
        return "" if low > -MAX_CERTAIN_COST else f"it may cost {MAX_CERTAIN_COST:g}"


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
