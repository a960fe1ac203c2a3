"""Where every object is: the four kinds of folder, and the names of the objects in them.

Records have fixed names. A data object has the SHA-256 of its content in its name, and the record that
commits it holds that SHA-256; so two writers cannot replace each other's data.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lobar.storage import objects


@dataclass(frozen=True)
class _Folder:
    """A folder by its URL; a plain path becomes a file URL."""

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", objects.absolute(self.url))


@dataclass(frozen=True)
class _Name:
    """The attribute of a folder that is the URL of one object, or of a folder, in it."""

    name: str

    def __get__(self, folder: _Folder, owner: type) -> str:
        return objects.join(folder.url, self.name)


@dataclass(frozen=True)
class _Names:
    """The attribute of a folder that makes an object's URL of its SHA-256 or its number."""

    pattern: str

    def __get__(self, folder: _Folder, owner: type) -> Callable[[str | int], str]:
        return lambda key: objects.join(folder.url, self.pattern.format(key))


class Dataset(_Folder):
    """`datasets/ID/`, made by label-index."""

    manifest = _Name("manifest.json")
    index = _Names("index-{}.parquet")


class Model(_Folder):
    """`models/ID/`, made by train and released by evaluate.

    `network` is the one for OpenVINO without its weights. `checkpoints` is the folder of one training, named
    by the digest of its inputs.
    """

    training = _Name("training.json")
    evaluation = _Name("evaluation.json")
    release = _Name("release.json")
    keras = _Names("model-{}.keras")
    network = _Names("openvino-{}.xml")
    weights = _Names("openvino-{}.bin")
    history = _Names("history-{}.csv")
    scores = _Names("scores-{}.parquet")
    report = _Names("report-{}.html")
    card = _Names("model_card-{}.md")
    checkpoints = _Names("checkpoints/{}")


class Prediction(_Folder):
    """`predictions/ID/`, made by plan, predict and merge-submission.

    `slice` lists the images of one shard. `export` is the folder of an `Export`. Shard records are named by
    the shard's number, all other data by their SHA-256.
    """

    plan = _Name("plan.json")
    slice = _Names("plan/{}.parquet")
    shards = _Name("shards")
    shard_table = _Names("shards/{}.csv")
    shard_record = _Names("shards/{:04d}.json")
    rejected = _Name("rejected.csv")
    submission = _Name("submission.csv")
    submission_record = _Name("submission.json")
    export = _Names("exports/{}")


class Export(_Folder):
    """`predictions/ID/exports/NAME/`, made by export; NAME stands for the destination.

    A record for each shard, named by its number. `reports` lists the reports of one shard.
    """

    shard_record = _Names("{:04d}.json")
    reports = _Names("{}.csv")


class Registry(_Folder):
    """`registry/`, to which promote adds numbered records."""

    record = _Names("{:06d}.json")
