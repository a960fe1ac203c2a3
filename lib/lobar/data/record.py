"""The record of label-index, and how images compare with those that a model was trained on."""

from dataclasses import dataclass, field
from typing import ClassVar

from lobar.core.rejections import Rejection
from lobar.storage.records import Record


@dataclass(frozen=True)
class Source:
    """What an index is made from: the URLs of label table, images and groups table, and the split.

    An empty `groups` makes each id a group of its own. `any_body_part`: see `imaging.dicom.header`.
    """

    labels: str
    images: str
    groups: str
    valid_fraction: float
    seed: int
    any_body_part: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class IndexInputs(Source):
    """A source with the SHA-256 of its tables, a digest of its images, and the code version."""

    labels_sha256: str
    groups_sha256: str
    images_digest: str
    lobar: str


@dataclass(frozen=True)
class SplitCounts:
    """What one split of an index holds."""

    images: int
    positive: int
    boxes: int
    groups: int
    views: dict[str, int]


@dataclass(frozen=True)
class Shift:
    """How far one property of new images is from that of a model's training images.

    `psi` is the population stability index, 0 for equal shares; below `limit` it may be chance. `was` and
    `now` describe the property in words.
    """

    name: str
    psi: float
    limit: float
    was: str
    now: str

    @property
    def drifted(self) -> bool:
        return self.psi > self.limit


@dataclass(frozen=True)
class Profile:
    """What a model's training images look like: how many there are, and 20 quantiles of each property.

    The bytes of an image; the mean and the standard deviation of its grey levels, 0 black to 1 white.
    """

    images: int = 0
    # a property that an older model lacks is not compared
    image_bytes: list[float] = field(default_factory=list)
    mean_grey: list[float] = field(default_factory=list)
    grey_spread: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Manifest(Record):
    """The record of a dataset: the SHA-256 of its index, what each split holds, and what was left out.

    `patients` counts all ids of labels and images, `drift` compares the images with those of the champion.
    """

    MADE_BY: ClassVar[str] = "label-index"

    inputs: IndexInputs
    index: str
    train: SplitCounts
    valid: SplitCounts
    patients: int
    rejected: list[Rejection]
    other_objects: list[str]
    drift: list[Shift]
