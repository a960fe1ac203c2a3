"""The plan of a prediction: which images, by which model, how, and in which shards."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lobar.core import console
from lobar.core.concurrency import ordered_map
from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.data import drift, listing
from lobar.data.listing import Image
from lobar.data.record import Shift
from lobar.inference import engines
from lobar.inference.record import Plan, PlanInputs
from lobar.inference.release import Release
from lobar.storage import objects, records, tables
from lobar.storage.layout import Model, Prediction
from lobar.training.record import Training

if TYPE_CHECKING:
    import pyarrow as pa

DRIFT_SAMPLE = 200  # the first images of a plan are a random sample


@dataclass(frozen=True)
class Request:
    """The options of a plan.

    shards: number of shards; 0: as many as `images_per_shard` makes. device: cpu or gpu. precision: of the
    network's arithmetic, or auto. operating_point: tuned or notebook. any_body_part: see
    `imaging.dicom.header`.
    """

    images_per_shard: int
    shards: int
    device: str
    precision: str
    operating_point: str
    any_body_part: bool = False


def read_slice(place: Prediction, plan: Plan, shard: int) -> list[Image]:
    """The images of one shard, in order. Raises InputError if there is no such shard."""
    if not 0 <= shard < len(plan.slices):
        raise InputError(f"shard {shard}: the plan has shards 0 to {len(plan.slices) - 1}", setting="shard")
    rows = tables.decode(records.get(place.slice, plan.slices[shard])).to_pylist()
    return [Image(row["patient_id"], objects.Object(row["url"], row["bytes"], row["etag"])) for row in rows]


def make(images: str, model: Model, place: Prediction, request: Request) -> Plan:
    """Fix what will be predicted, by which model and how.

    Everything is resolved here once, so that no later change of the model or the folder can mix results.
    Warns if the images are unlike those that the model was trained on. Raises InputError if the model is not
    released, two images have one name, or another plan is there.
    """
    release = records.read(model.release, Release)
    precision = engines.resolve_precision(request.precision, request.device, release)
    offer = release.precisions["float32" if request.device == "gpu" else precision]
    listed, other_objects = listing.list_images(images)
    for previous, image in itertools.pairwise(listed):
        if previous.patient_id == image.patient_id:
            raise InputError(f"{image.object.url}: {previous.object.url} has the same name; keep one of them")
    listed = _with_etags(listed)
    inputs = PlanInputs(
        images=objects.absolute(images),
        images_digest=records.digest([(i.object.url, i.object.bytes, i.object.etag) for i in listed]),
        count=len(listed),
        shards=request.shards or -(-len(listed) // request.images_per_shard),
        model=model.url,
        files=release.files,
        recipe=release.recipe,
        operating_point=offer.tuned if request.operating_point == "tuned" else offer.notebook,
        device=request.device,
        precision=precision,
        cpu_features=offer.cpu_features,
        lobar=code_version(),
        any_body_part=request.any_body_part,
    )
    if plan := records.find(place.plan, Plan, inputs):
        return plan
    slices = [
        records.put(place.slice, tables.encode(slice_table([listed[i] for i in part])))
        for part in cut(inputs.count, inputs.shards)
    ]
    shifts = _drift(listed, model, inputs)
    plan = Plan(inputs=inputs, slices=slices, other_objects=other_objects, drift=shifts)
    return records.create(place.plan, plan)


@drift.advice
def _drift(images: Sequence[Image], model: Model, inputs: PlanInputs) -> list[Shift]:
    """How the images compare with the training images, with warnings; unreadable ones are skipped."""
    from lobar.imaging import loader  # it decodes; the merge reads plans too and needs no decoder

    trained = records.read(model.training, Training).profile
    recipe = inputs.recipe
    sample = loader.decoded(images[:DRIFT_SAMPLE], recipe.image_size, recipe.sampling, inputs.any_body_part)
    levels = (image.levels for image in sample if isinstance(image, loader.Decoded))
    shifts = drift.from_profile(images, levels, recipe.sampling, trained)
    drift.warn(shifts, model.url)
    return shifts


def cut(count: int, shards: int) -> list[range]:
    """The contiguous slices of `count` images for `shards` shards, of equal size to within one image."""
    return [range(k * count // shards, (k + 1) * count // shards) for k in range(shards)]


def _with_etags(images: Sequence[Image]) -> list[Image]:
    items: Iterable[objects.Object] = (image.object for image in images)
    with_etags = ordered_map(objects.with_etag, items, workers=objects.READERS, ahead=2 * objects.READERS)
    progress = console.progress(with_etags, len(images), "images listed")
    return [Image(image.patient_id, item) for image, item in zip(images, progress, strict=True)]


def slice_table(images: Sequence[Image]) -> "pa.Table":
    """The table of one shard: its images in order, as predict and the merge read them."""
    import pyarrow as pa

    # not from_pylist: pyarrow imports pandas there to see whether a value is a Series
    def texts(values: Iterable[str]) -> pa.Array:
        builder = pa.lib.StringBuilder()
        builder.append_values(list(values))
        return builder.finish()

    sizes = np.array([image.object.bytes for image in images], np.int64)
    return pa.table(
        {
            "patient_id": texts(image.patient_id for image in images),
            "url": texts(image.object.url for image in images),
            "etag": texts(image.object.etag for image in images),
            "bytes": pa.Array.from_buffers(pa.int64(), len(sizes), [None, pa.py_buffer(sizes)]),
        }
    )
