"""The plan of a prediction: which images, by which model, how, and in which shards."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lobar.core import console
from lobar.core.concurrency import ordered_map
from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.data import drift, listing
from lobar.data.listing import Image
from lobar.data.record import Shift
from lobar.inference import engines, reuse, slices
from lobar.inference.record import Plan, PlanInputs
from lobar.inference.release import Release
from lobar.inference.slices import Planned
from lobar.storage import objects, records
from lobar.storage.layout import Model, Prediction
from lobar.training.record import Training

DRIFT_SAMPLE = 200  # the first images of a plan are a random sample
ROWS_PER_IMAGE = 10  # rows in a shard, most of them reused, for each image to predict: a shard fits in memory


@dataclass(frozen=True)
class Request:
    """The options of a plan.

    shards: number of shards; 0: as many as `images_per_shard` makes of the images that have to be predicted,
    or more if rows are reused, so that no shard has more than ROWS_PER_IMAGE times as many rows.
    device: cpu or gpu. precision: of the network's arithmetic, or auto. operating_point: tuned or notebook.
    any_body_part: see `imaging.dicom.header`. reuse: the folder of an earlier prediction whose rows are taken
    where they would be the same; empty: none.
    """

    images_per_shard: int
    shards: int
    device: str
    precision: str
    operating_point: str
    any_body_part: bool = False
    reuse: str = ""


def make(images: str, model: Model, place: Prediction, request: Request) -> Plan:
    """Fix what will be predicted, by which model and how.

    Everything is resolved here once, so that no later change of the model or the folder can mix results.
    Warns if the images are unlike those that the model was trained on. Raises InputError if the model is not
    released, two images have one name, or another plan is there.
    """
    release = records.read(model.release, Release)
    precision = engines.resolve_precision(request.precision, request.device, release)
    offer = release.precisions["float32" if request.device == "gpu" else precision]
    listed, other_objects = _list(images)
    inputs = PlanInputs(
        images=objects.absolute(images),
        images_digest=records.digest([(i.object.url, i.object.bytes, i.object.etag) for i in listed]),
        count=len(listed),
        shards=request.shards,
        model=model.url,
        files=release.files,
        recipe=release.recipe,
        operating_point=offer.tuned if request.operating_point == "tuned" else offer.notebook,
        device=request.device,
        precision=precision,
        cpu_features=offer.cpu_features,
        lobar=code_version(),
        any_body_part=request.any_body_part,
        reuse=objects.absolute(request.reuse) if request.reuse else "",
    )
    if inputs.reuse:
        planned = reuse.join(listed, inputs, Prediction(inputs.reuse))
    else:
        planned = [Planned(image) for image in listed]
    reused = sum(item.reused is not None for item in planned)
    if not inputs.shards:
        work = max(len(listed) - reused, len(listed) / ROWS_PER_IMAGE)
        inputs = replace(inputs, shards=math.ceil(work / request.images_per_shard))
    if plan := records.find(place.plan, Plan, inputs):
        return plan
    parts = slices.cut(inputs.count, inputs.shards)
    plan = Plan(
        inputs=inputs,
        slices=[slices.put(place, [planned[i] for i in part]) for part in parts],
        reused=reused,
        other_objects=other_objects,
        drift=_drift(listed, model, inputs),
    )
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


def _list(url: str) -> tuple[list[Image], list[str]]:
    """The images in a folder with their etags, and the URLs of other objects there."""
    images, others = listing.list_images(url)
    for previous, image in itertools.pairwise(images):
        if previous.patient_id == image.patient_id:
            raise InputError(f"{image.object.url}: {previous.object.url} has the same name; keep one of them")
    items: Iterable[objects.Object] = (image.object for image in images)
    with_etags = ordered_map(objects.with_etag, items, workers=objects.READERS, ahead=2 * objects.READERS)
    progress = console.progress(with_etags, len(images), "images listed")
    return [Image(image.patient_id, item) for image, item in zip(images, progress, strict=True)], others
