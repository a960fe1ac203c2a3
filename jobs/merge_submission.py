"""merge-submission: join the finished shards of a plan into one CSV."""

from typing import Annotated

import typer


def main(
    prediction: Annotated[str, typer.Option(help="the folder that plan made")],
    out: Annotated[str, typer.Option(help="put a copy of the submission there")] = "",
    figures: Annotated[str, typer.Option(help="put the counts of rows as numbers into this folder")] = "",
) -> None:
    from lobar.inference import plan, submission
    from lobar.storage import objects, records
    from lobar.storage.layout import Prediction

    place = Prediction(objects.absolute(prediction))
    merged = submission.merge(plan.read(place), objects.absolute(out) if out else None)
    print(f"submission: {objects.absolute(out) if out else place.submission}")
    counts = {"rows": merged.rows, "with-boxes": merged.with_boxes, "rejected": len(merged.rejected)}
    records.write_figures(figures, counts)
    empty = merged.rows - merged.with_boxes - len(merged.rejected)
    print(f"  {merged.rows} rows: {merged.with_boxes} with boxes, {empty} without a finding")
    if merged.rejected:
        named = ", ".join(f"{patient} ({reason})" for patient, reason in merged.rejected[:3])
        print(f"  {len(merged.rejected)} REJECTED, their empty rows are no finding: {named}")
        print(f"  all of them: {place.rejected}")
