"""Where every object is: the four kinds of folder, and the names of the objects in them.

A record has one name. Data objects have the SHA-256 of their content in their name, which the record that
commits them holds; so two writers can never exchange what a record names.
"""

from dataclasses import dataclass

from lobar.storage import objects


@dataclass(frozen=True)
class Dataset:
    """`datasets/ID/`, made by label-index."""

    url: str

    @property
    def manifest(self) -> str:
        return objects.join(self.url, "manifest.json")

    def index(self, sha256: str) -> str:
        return _named(self.url, "index", sha256, "parquet")


@dataclass(frozen=True)
class Model:
    """`models/ID/`, made by train and released by evaluate."""

    url: str

    @property
    def training(self) -> str:
        return objects.join(self.url, "training.json")

    @property
    def evaluation(self) -> str:
        return objects.join(self.url, "evaluation.json")

    @property
    def release(self) -> str:
        return objects.join(self.url, "release.json")

    def keras(self, sha256: str) -> str:
        return _named(self.url, "model", sha256, "keras")

    def network(self, sha256: str) -> str:
        """The network for OpenVINO, without its weights."""
        return _named(self.url, "openvino", sha256, "xml")

    def weights(self, sha256: str) -> str:
        """The weights of a network for OpenVINO."""
        return _named(self.url, "openvino", sha256, "bin")

    def history(self, sha256: str) -> str:
        return _named(self.url, "history", sha256, "csv")

    def scores(self, sha256: str) -> str:
        return _named(self.url, "scores", sha256, "parquet")

    def report(self, sha256: str) -> str:
        return _named(self.url, "report", sha256, "html")

    def checkpoints(self, training: str) -> str:
        """The folder of the checkpoints of one training, named by the digest of its inputs."""
        return objects.join(self.url, "checkpoints", training)


@dataclass(frozen=True)
class Prediction:
    """`predictions/ID/`, made by plan, predict and merge-submission."""

    url: str

    @property
    def plan(self) -> str:
        return objects.join(self.url, "plan.json")

    def slice(self, sha256: str) -> str:
        """The images of one shard."""
        return objects.join(self.url, "plan", f"{sha256}.parquet")

    @property
    def shards(self) -> str:
        return objects.join(self.url, "shards")

    def shard_table(self, sha256: str) -> str:
        return objects.join(self.shards, f"{sha256}.csv")

    def shard_record(self, shard: int) -> str:
        return objects.join(self.shards, f"{shard:04d}.json")

    @property
    def rejected(self) -> str:
        return objects.join(self.url, "rejected.csv")

    @property
    def submission(self) -> str:
        return objects.join(self.url, "submission.csv")

    @property
    def submission_record(self) -> str:
        return objects.join(self.url, "submission.json")


@dataclass(frozen=True)
class Registry:
    """`registry/`, to which promote adds records."""

    url: str

    def record(self, number: int) -> str:
        return objects.join(self.url, f"{number:06d}.json")


def _named(folder: str, stem: str, sha256: str, suffix: str) -> str:
    return objects.join(folder, f"{stem}-{sha256}.{suffix}")
