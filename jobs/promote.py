"""promote: compare a challenger with the champion, and record which model is champion."""

from typing import Annotated

import typer


def main(
    registry: Annotated[str, typer.Option(help="folder of the registry")],
    challenger: Annotated[str, typer.Option(help="folder of a model released by evaluate")] = "",
    dataset: Annotated[
        str, typer.Option(help="folder of the dataset on whose validation images both are compared")
    ] = "",
    min_gain: Annotated[
        float, typer.Option(min=0, help="gain of the challenge metric that the challenger needs")
    ] = 0.03,
    rollback: Annotated[
        str, typer.Option(help="folder of the champion to remove; the one before it is restored")
    ] = "",
    report: Annotated[str, typer.Option(help="file for a page on the decision")] = "",
    figures: Annotated[str, typer.Option(help="folder for a file that contains only 1 (promoted) or 0")] = "",
) -> None:
    from jobs import figures as outputs
    from lobar.core.errors import InputError
    from lobar.evaluation import registry as registries
    from lobar.evaluation.report import decision as page
    from lobar.storage.layout import Dataset, Model, Registry
    from lobar.storage.objects import absolute, publish

    if (challenger or dataset or report) if rollback else not (challenger and dataset):
        raise InputError("promote takes either --rollback MODEL alone, or --challenger and --dataset")
    place = Registry(registry)
    if rollback:
        decision = registries.roll_back(place, Model(rollback))
    else:
        decision = registries.promote(place, Model(challenger), Dataset(dataset), min_gain)
    outputs.write(figures, {"promoted": int(decision.promoted)})
    print(f"champion: {decision.champion.model if decision.champion else 'none yet'}")
    verb = "promoted" if decision.promoted else "rolled back" if decision.rolled_back else "kept"
    print(f"  {verb}: {decision.reason}")
    if decision.comparison and (left_out := decision.comparison.left_out):
        print(f"  {left_out} validation images left out: known to one of the models, or not readable")
    if report:
        publish(report, page.render(decision))
        print(f"report: {absolute(report)}")
    print(f"record: {place.record(decision.number)}")
