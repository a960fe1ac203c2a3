"""Datasets, models and predictions: where every object lies, and how each kind is committed.

Data objects never change once named. A record is one JSON object, put last: what it names is complete.
Its `inputs` say what it was made from, so that the same work is recognised and other work refused.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lobar import storage
from lobar.errors import AbsentError, InputError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Dataset:
    """`datasets/ID/`, made by label-index."""

    url: str

    @property
    def index(self) -> str:
        return storage.join(self.url, "index.parquet")

    @property
    def summary(self) -> str:
        return storage.join(self.url, "summary.json")

    @property
    def manifest(self) -> str:
        return storage.join(self.url, "manifest.json")


@dataclass(frozen=True)
class Model:
    """`models/ID/`, made by train and released by evaluate."""

    url: str

    @property
    def keras(self) -> str:
        return storage.join(self.url, "model.keras")

    def openvino(self, precision: str) -> tuple[str, str]:
        """The network for OpenVINO and its weights: int8 has its own, bfloat16 those of float32."""
        stem = "openvino-int8" if precision == "int8" else "openvino"
        return storage.join(self.url, f"{stem}.xml"), storage.join(self.url, f"{stem}.bin")

    @property
    def history(self) -> str:
        return storage.join(self.url, "history.csv")

    @property
    def training(self) -> str:
        return storage.join(self.url, "training.json")

    @property
    def evaluation(self) -> str:
        return storage.join(self.url, "evaluation.json")

    @property
    def operating_point(self) -> str:
        return storage.join(self.url, "operating_point.json")

    @property
    def report(self) -> str:
        return storage.join(self.url, "report.html")

    @property
    def release(self) -> str:
        return storage.join(self.url, "release.json")

    def scores(self, dataset: Dataset) -> str:
        return storage.join(self.url, "scores", f"{storage.name(dataset.url)}.parquet")

    def checkpoints(self, training: str) -> str:
        """The folder of the checkpoints of one training, named by the digest of its inputs."""
        return storage.join(self.url, "checkpoints", training)


@dataclass(frozen=True)
class Prediction:
    """`predictions/ID/`, made by plan, predict and merge-submission."""

    url: str

    @property
    def plan(self) -> str:
        return storage.join(self.url, "plan.json")

    @property
    def refused(self) -> str:
        return storage.join(self.url, "refused.csv")

    @property
    def submission(self) -> str:
        return storage.join(self.url, "submission.csv")

    @property
    def lineage(self) -> str:
        return storage.join(self.url, "submission.json")

    def slice(self, shard: int) -> str:
        return storage.join(self.url, "plan", f"{shard:04d}.parquet")

    @property
    def shards(self) -> str:
        return storage.join(self.url, "shards")

    def shard_table(self, sha256: str) -> str:
        return storage.join(self.shards, f"{sha256}.csv")

    def shard_record(self, shard: int) -> str:
        return storage.join(self.shards, f"{shard:04d}.json")


@dataclass(frozen=True)
class Registry:
    """`registry/`, to which promote adds records."""

    url: str

    def record(self, number: int) -> str:
        return storage.join(self.url, f"{number:06d}.json")


def sha256(data: bytes) -> str:
    """Digest of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """Digest of a JSON value, independent of the order of keys."""
    return sha256(json.dumps(value, sort_keys=True).encode())


def read_checked(url: str, expected: str) -> bytes:
    """An object whose SHA-256 a record names. Raises InputError where it is another."""
    data = storage.read(url)
    if sha256(data) != expected:
        raise InputError(
            f"{url}: its content is not the one recorded (SHA-256 {expected[:12]}…); it was altered"
        )
    return data


class Record(dict[str, Any]):
    """A JSON object of a committed record; a key that it lacks raises InputError."""

    def __init__(self, values: Any = (), url: str = "a record", made_by: str = "its job") -> None:
        super().__init__(values)  # dataclasses.asdict gives these alone
        self._where = url, made_by

    def __missing__(self, key: str) -> Any:
        url, made_by = self._where
        raise InputError(
            f"{url}: has no {key!r}: altered, or of another version of lobar; run {made_by} anew elsewhere"
        )


def read_record(url: str, made_by: str) -> dict[str, Any]:
    """A committed record. Raises InputError naming the job that makes it where it is absent or no JSON."""
    try:
        record: Any = json.loads(storage.read(url), object_hook=lambda found: Record(found, url, made_by))
    except AbsentError as error:
        raise AbsentError(f"{url}: not there; run {made_by} first, or check the URL") from error
    except ValueError as error:
        raise InputError(f"{url}: not a JSON record ({error})") from error
    if not isinstance(record, dict) or "inputs" not in record:
        raise InputError(f"{url}: not a record of {made_by}: it has no inputs")
    return record


def already(
    url: str, inputs: dict[str, Any], made_by: str, otherwise: str = "choose another --out"
) -> dict[str, Any] | None:
    """The record at `url` if it was made from these very inputs, None where there is none yet.

    Raises InputError where the place is taken by the same job's work on other inputs; the text says what was
    different and `otherwise` what to do.
    """
    try:
        record = read_record(url, made_by)
    except AbsentError:
        return None
    # through JSON, so that tuples and lists compare equal
    wanted = json.loads(json.dumps(inputs))
    found = record["inputs"]
    if found == wanted:
        return record
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    shown = "; ".join(f"{key} was {found.get(key)!r}, now {wanted.get(key)!r}" for key in differing[:3])
    raise InputError(f"{url}: made from other inputs ({shown}); {otherwise}")


def commit(url: str, inputs: dict[str, Any], **outputs: Any) -> dict[str, Any]:
    """Put a record, the last object of its kind: what it was made from, what was made, and when."""
    record = {"inputs": inputs, **outputs, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(url, record)
    return record


def write_json(url: str, value: Any) -> None:
    """Put a JSON object that people can read."""
    storage.publish(url, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """JSON that people can read."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def write_figures(folder: str, figures: Mapping[str, float | None]) -> None:
    """Put each figure as an object of its name that holds the number alone: an output parameter for Argo.

    One that does not exist is `NaN`. Nothing is put where `folder` is empty.
    """
    for name, value in figures.items() if folder else ():
        text = "NaN" if value is None else str(value)
        storage.publish(storage.join(storage.absolute(folder), name), text.encode())


def write_table(url: str, table: "pa.Table") -> str:
    """Put a table as Parquet and return the SHA-256 of its bytes."""
    import pyarrow.parquet as pq

    body = io.BytesIO()
    pq.write_table(table, body, compression="zstd")
    storage.publish(url, body.getvalue())
    return sha256(body.getvalue())


def read_table(url: str, expected: str) -> "pa.Table":
    """A Parquet table whose SHA-256 a record names."""
    import pyarrow.parquet as pq

    # pyarrow's reading threads sometimes outlive the interpreter, which then aborts at exit
    file = pq.ParquetFile(io.BytesIO(read_checked(url, expected)), pre_buffer=False)
    return file.read(use_threads=False)
