"""export: write a shard of a finished prediction as DICOM structured reports."""

from typing import Annotated

import typer


def main(
    prediction: Annotated[str, typer.Option(help="folder of the prediction, merged by merge-submission")],
    to: Annotated[
        str, typer.Option(help="folder, a path or URL, or dicomweb+https://HOST/PATH of a DICOMweb server")
    ],
    shard: Annotated[int, typer.Option(min=0, help="number of the shard, from 0")],
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="share of images without the UIDs that a report needs")
    ] = 0,
) -> None:
    from lobar.inference.writers import export
    from lobar.storage.layout import Prediction

    place = Prediction(prediction)
    done = export.run(place, to, shard, max_rejected)
    print(f"shard {shard}: {done.rows} rows, {done.reports} reports to {export.destination(to)}")
    empty = done.reports - done.with_boxes
    print(f"  {done.with_boxes} reports with boxes, {empty} without a finding")
    if done.rejected:
        print(f"  {done.rejected} images rejected by predict: they have NO report")
    if done.without_report:
        names = ", ".join(f"{item.patient_id} ({item.reason})" for item in done.without_report[:3])
        print(f"  {len(done.without_report)} more have NO report: {names}")
    so_far = export.progress(place, to)
    if so_far.missing:
        names = ", ".join(map(str, so_far.missing[:5])) + (", …" if len(so_far.missing) > 5 else "")
        print(f"  {len(so_far.missing)} of {so_far.shards} shards were missing when this one ended: {names}")
    else:
        without = so_far.rows - so_far.reports
        print(
            f"  all shards are exported: {so_far.rows} rows, {so_far.reports} reports, {without} without one"
        )
