"""merge-submission: merge all shards of a plan into one CSV."""

from typing import Annotated

import typer


def main(
    prediction: Annotated[str, typer.Option(help="folder of the prediction, made by plan")],
    out: Annotated[str, typer.Option(help="file for a copy of the submission")] = "",
    figures: Annotated[
        str, typer.Option(help="folder for files that each contain one count: rows, with-boxes, rejected")
    ] = "",
) -> None:
    from jobs import figures as outputs
    from lobar.inference import submission
    from lobar.storage.layout import Prediction
    from lobar.storage.objects import absolute

    place = Prediction(prediction)
    merged = submission.merge(place, absolute(out) if out else None)
    print(f"submission: {absolute(out) if out else place.submission}")
    rejected = len(merged.rejected)
    outputs.write(figures, {"rows": merged.rows, "with-boxes": merged.with_boxes, "rejected": rejected})
    empty = merged.rows - merged.with_boxes - rejected
    print(f"  {merged.rows} rows: {merged.with_boxes} with boxes, {empty} without a finding")
    if rejected:
        names = ", ".join(f"{item.patient_id} ({item.reason})" for item in merged.rejected[:3])
        print(f"  {rejected} REJECTED, their empty rows are not findings: {names}")
        print(f"  all of them: {place.rejected}")
