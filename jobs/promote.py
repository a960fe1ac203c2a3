"""promote: compare a challenger with the champion, and record who is champion from now on."""

from typing import Annotated

import typer


def main(
    registry: Annotated[str, typer.Option(help="the folder of the registry")],
    challenger: Annotated[str, typer.Option(help="a model released by evaluate")] = "",
    dataset: Annotated[
        str, typer.Option(help="the dataset on whose validation images both are compared")
    ] = "",
    min_gain: Annotated[float, typer.Option(min=0, help="challenge metric that must be gained")] = 0.0,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="make the champion before this one champion again")
    ] = False,
    report: Annotated[str, typer.Option(help="put the decision there as a page to read")] = "",
    figures: Annotated[str, typer.Option(help="put 1 (promoted) or 0 as a number into this folder")] = "",
) -> None:
    from lobar.core.errors import InputError
    from lobar.evaluation import registry as champions
    from lobar.evaluation.report import decision
    from lobar.storage import objects, records
    from lobar.storage.layout import Dataset, Model, Registry

    if (challenger or dataset or report) if rollback else not (challenger and dataset):
        raise InputError("promote wants either --rollback alone, or --challenger and --dataset")
    place = Registry(objects.absolute(registry))
    if rollback:
        entry = champions.roll_back(place)
    else:
        model = Model(objects.absolute(challenger))
        entry = champions.promote(place, model, Dataset(objects.absolute(dataset)), min_gain)
    records.write_figures(figures, {"promoted": int(entry.promoted)})
    print(f"champion: {entry.champion['model'] if entry.champion else 'none yet'}")
    print(
        f"  {'promoted' if entry.promoted else 'rolled back' if entry.rolled_back else 'kept'}: {entry.why}"
    )
    if entry.comparison and entry.comparison["left_out"]:
        left_out = entry.comparison["left_out"]
        print(f"  {left_out} validation images left out: known to one of the models, or not readable")
    if report:
        objects.publish(report, decision.render(entry))
        print(f"report: {objects.absolute(report)}")
    print(f"record: {place.record(entry.number)}")
