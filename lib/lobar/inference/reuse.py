"""Rows that a new plan takes from an earlier prediction, because they would be the same."""

import logging
from collections.abc import Sequence
from dataclasses import asdict

from lobar.data.listing import Image, order_key
from lobar.inference import submission
from lobar.inference.record import Plan, PlanInputs, Submission
from lobar.inference.slices import Planned
from lobar.storage import records
from lobar.storage.layout import Prediction

log = logging.getLogger(__name__)
# what the row of an image depends on, besides the image
ROW_INPUTS = (
    "files", "recipe", "operating_point", "device", "precision", "cpu_features", "lobar", "any_body_part"
)  # fmt: skip


def join(images: Sequence[Image], inputs: PlanInputs, earlier: Prediction) -> list[Planned]:
    """The images in their order, each with its row of an earlier prediction if that would be the same.

    A row is the same if the image (its URL, size and etag) and all of ROW_INPUTS are. Rejected images are
    read again. Warns if no row can be reused because something else differs. Raises InputError if the earlier
    prediction is not merged, or damaged.
    """
    records.read(earlier.submission_record, Submission)
    plan = records.read(earlier.plan, Plan)
    before, now = asdict(plan.inputs), asdict(inputs)
    if differing := [name for name in ROW_INPUTS if before[name] != now[name]]:
        names = ", ".join(differing)
        log.warning("%s: no row can be reused, because the plans differ in: %s", earlier.url, names)
        return [Planned(image) for image in images]
    joined = []
    rows = submission.rows(earlier, plan)
    candidate = next(rows, None)
    for image in images:
        # both are in this order
        while candidate and order_key(candidate[0].patient_id) < order_key(image.patient_id):
            candidate = next(rows, None)
        same = candidate is not None and candidate[0] == image
        joined.append(Planned(image, candidate[1] if candidate and same else None))
    return joined
