"""The plan of a prediction: which images, by which model, how, and in which shards."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lobar.core import console
from lobar.core.concurrency import ordered_map
from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.data import listing
from lobar.data.listing import Image
from lobar.inference import engines
from lobar.storage import objects as store
from lobar.storage import records
from lobar.storage.layout import Model, Prediction

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Plan:
    """A committed plan, as every shard and the merge read it."""

    place: Prediction
    inputs: dict[str, Any]
    slices: list[str]

    @property
    def digest(self) -> str:
        """What a shard's record carries to show that it belongs to this plan."""
        return records.digest([self.inputs, self.slices])

    @property
    def options(self) -> dict[str, Any]:
        """The options of the model's training, which say what the network takes."""
        return dict(self.inputs["options"])

    def images(self, shard: int) -> list[Image]:
        """The images of one shard, in order. Raises InputError where the shard does not exist."""
        if not 0 <= shard < len(self.slices):
            raise InputError(f"--shard {shard}: the plan has shards 0 to {len(self.slices) - 1}")
        rows = records.read_table(self.place.slice(shard), self.slices[shard]).to_pylist()
        return [Image(r["patient_id"], store.Object(r["url"], r["bytes"], r["etag"])) for r in rows]


def read(place: Prediction) -> Plan:
    """The committed plan of a prediction. Raises InputError where there is none."""
    record = records.read_record(place.plan, "plan")
    return Plan(place, record["inputs"], record["slices"])


def make(
    images: str,
    model: Model,
    shards: int,
    place: Prediction,
    device: str,
    precision: str,
    operating_point: str,
) -> tuple[Plan, list[str]]:
    """Fix what will be predicted, by which model and how; return the plan and the objects that are no images.

    Everything is resolved here once, so that no later change of the model or the folder can mix results.
    Warns where the images are unlike those that the model was trained on. Raises InputError where the model
    is not released, two images share a name, or the place is taken.
    """
    release = records.read_record(model.release, "evaluate")
    chosen = engines.resolve_precision(precision, device, release)
    offer = release["precisions"]["float32" if device == "gpu" else chosen]
    found, others = listing.list_images(images)
    for before, image in itertools.pairwise(found):
        if before.patient_id == image.patient_id:
            raise InputError(f"{image.object.url}: {before.object.url} has the same name; keep one")
    found = _with_etags(found)
    inputs = {
        "images": store.absolute(images),
        "images_digest": records.digest([(i.object.url, i.object.bytes, i.object.etag) for i in found]),
        "count": len(found),
        "shards": shards,
        "model": model.url,
        "files": release["files"],
        "options": release["options"],
        "operating_point": offer["operating_points"][operating_point],
        "device": device,
        "precision": chosen,
        "cpu_features": offer["cpu_features"],
        "lobar": code_version(),
    }
    if records.already(place.plan, inputs, "plan") is None:
        tables = [
            records.write_table(place.slice(shard), slice_table([found[i] for i in part]))
            for shard, part in enumerate(cut(len(found), shards))
        ]
        from lobar.data import drift  # it decodes, and the merge, which reads plans too, needs no decoder

        shifts = drift.from_profile(found, records.read_record(model.training, "train"))
        drift.warn(shifts, model.url)
        records.commit(
            place.plan, inputs, slices=tables, others=others, drift=[asdict(each) for each in shifts]
        )
    return read(place), others


def cut(count: int, shards: int) -> list[range]:
    """The contiguous slices of `count` images that `shards` shards take, equal to within one image."""
    return [range(k * count // shards, (k + 1) * count // shards) for k in range(shards)]


def _with_etags(images: Sequence[Image]) -> list[Image]:
    items: Iterable[store.Object] = (image.object for image in images)
    filled = ordered_map(store.with_etag, items, workers=store.READERS, ahead=2 * store.READERS)
    objects = list(console.progress(filled, len(images), "images listed"))
    return [Image(image.patient_id, item) for image, item in zip(images, objects, strict=True)]


def slice_table(images: Sequence[Image]) -> "pa.Table":
    """The table of one shard: its images in order, as predict and the merge read them."""
    import pyarrow as pa

    schema = pa.schema(
        [("patient_id", pa.string()), ("url", pa.string()), ("etag", pa.string()), ("bytes", pa.int64())]
    )
    rows = [
        {"patient_id": i.patient_id, "url": i.object.url, "etag": i.object.etag, "bytes": i.object.bytes}
        for i in images
    ]
    return pa.Table.from_pylist(rows, schema)
