"""The images of each shard of a plan, as tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lobar.core.errors import InputError
from lobar.data.listing import Image
from lobar.inference.record import Plan
from lobar.storage import objects, records, tables
from lobar.storage.layout import Prediction


@dataclass(frozen=True, slots=True)
class Planned:
    """An image of a plan, and its PredictionString if that is taken from an earlier prediction."""

    image: Image
    reused: str | None = None


def cut(count: int, shards: int) -> list[range]:
    """The contiguous slices of `count` images for `shards` shards, of equal size to within one image."""
    return [range(k * count // shards, (k + 1) * count // shards) for k in range(shards)]


def read(place: Prediction, plan: Plan, shard: int) -> list[Planned]:
    """The images of one shard, in order. Raises InputError if there is no such shard."""
    if not 0 <= shard < len(plan.slices):
        raise InputError(f"shard {shard}: the plan has shards 0 to {len(plan.slices) - 1}", setting="shard")
    rows = tables.decode(records.get(place.slice, plan.slices[shard])).to_pylist()
    return [
        Planned(
            Image(row["patient_id"], objects.Object(row["url"], row["bytes"], row["etag"])), row["reused"]
        )
        for row in rows
    ]


def put(place: Prediction, planned: Sequence[Planned]) -> str:
    """Put the images of one shard, in order; return the SHA-256 of their table."""
    import pyarrow as pa

    # not from_pylist: pyarrow imports pandas there to see whether a value is a Series
    def texts(values: Iterable[str | None]) -> pa.Array:
        builder = pa.lib.StringBuilder()
        builder.append_values(list(values))
        return builder.finish()

    sizes = np.array([item.image.object.bytes for item in planned], np.int64)
    table = pa.table(
        {
            "patient_id": texts(item.image.patient_id for item in planned),
            "url": texts(item.image.object.url for item in planned),
            "etag": texts(item.image.object.etag for item in planned),
            "bytes": pa.Array.from_buffers(pa.int64(), len(sizes), [None, pa.py_buffer(sizes)]),
            "reused": texts(item.reused for item in planned),
        }
    )
    return records.put(place.slice, tables.encode(table))
