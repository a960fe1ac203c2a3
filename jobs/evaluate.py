"""evaluate: score a model on a dataset, tune its operating point, release it."""

from typing import Annotated

import typer


def main(
    model: Annotated[str, typer.Option(help="folder of a model made by train")],
    dataset: Annotated[str, typer.Option(help="folder of the dataset that it was trained with")],
    report: Annotated[str, typer.Option(help="file for a copy of the report")] = "",
    figures: Annotated[
        str, typer.Option(help="folder for a file that contains only the challenge metric")
    ] = "",
) -> None:
    from jobs import figures as outputs
    from lobar.evaluation import evaluate
    from lobar.evaluation.record import SYSTEMS, verdict
    from lobar.inference.release import Release
    from lobar.storage import objects, records
    from lobar.storage.layout import Dataset, Model

    place = Model(model)
    evaluation = evaluate.run(place, Dataset(dataset))
    if report:
        objects.publish(report, records.get(place.report, evaluation.report))
    outputs.write(figures, {"challenge-metric": evaluation.systems["tuned"].metric})
    print(f"challenge metric on {evaluation.images} validation images, {evaluation.positive} positive"
          " (95 % interval over patients):")  # fmt: skip
    for name, title in SYSTEMS.items():
        print(f"  {title:42}{evaluation.systems[name]}")
    print(f"  {verdict(evaluation.systems)}")
    for name, trial in evaluation.precisions.items():
        if name != "float32":
            offer = "offered" if trial.offered else f"not offered: {trial.objection}"
            print(f"  {name}: {trial.gain.signed} against float32, {offer}")
    print(f"report: {objects.absolute(report) if report else place.report(evaluation.report)}")
    print(f"model card: {place.card(records.read(place.release, Release).card)}")
