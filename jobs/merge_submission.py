"""merge-submission: join the finished shards of a plan into one CSV."""

from typing import Annotated

import typer


def main(
    prediction: Annotated[str, typer.Option(help="the folder that plan made")],
    out: Annotated[str, typer.Option(help="put a copy of the submission there")] = "",
    figures: Annotated[str, typer.Option(help="put the counts of rows as numbers into this folder")] = "",
) -> None:
    from lobar import artifacts, plan, storage, submission

    place = artifacts.Prediction(storage.absolute(prediction))
    merged = submission.merge(plan.read(place), storage.absolute(out) if out else None)
    print(f"submission: {storage.absolute(out) if out else place.submission}")
    counts = {"rows": merged.rows, "with-boxes": merged.with_boxes, "refused": len(merged.refused)}
    artifacts.write_figures(figures, counts)
    empty = merged.rows - merged.with_boxes - len(merged.refused)
    print(f"  {merged.rows} rows: {merged.with_boxes} with boxes, {empty} without a finding")
    if merged.refused:
        named = ", ".join(f"{patient} ({reason})" for patient, reason in merged.refused[:3])
        print(f"  {len(merged.refused)} REFUSED, their empty rows are no finding: {named}")
        print(f"  all of them: {place.refused}")
