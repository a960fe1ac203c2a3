"""evaluate: score a model on a dataset, tune its operating point, release it."""

from typing import Annotated

import typer


def main(
    model: Annotated[str, typer.Option(help="a model made by train")],
    dataset: Annotated[str, typer.Option(help="the dataset to validate on")],
    report: Annotated[str, typer.Option(help="put a copy of the report there")] = "",
    figures: Annotated[str, typer.Option(help="put the challenge metric as a number into this folder")] = "",
) -> None:
    import json

    from lobar.evaluation import evaluate
    from lobar.evaluation.bootstrap import Interval
    from lobar.evaluation.report import figures as figures_module
    from lobar.evaluation.report import page as reporting
    from lobar.storage import objects, records
    from lobar.storage.layout import Dataset, Model

    place = Model(objects.absolute(model))
    data = Dataset(objects.absolute(dataset))
    inputs = evaluate.inputs_of(place, data)
    advice = "a model is released once; train another one for other data"
    if records.already(place.release, inputs, "evaluate", advice):
        record = records.read_record(place.evaluation, "evaluate")
    else:
        found = evaluate.score(place, data)
        training = records.read_record(place.training, "train")
        page = reporting.render(
            found, objects.read(place.history), training, json.loads(objects.read(data.summary))
        )
        objects.publish(place.report, page)
        record = evaluate.release(place, data, found)
    if report:
        objects.publish(report, objects.read(place.report))
    print(f"challenge metric on {record['images']} validation images, {record['positive']} positive"
          " (95 % interval over people):")  # fmt: skip
    systems = {name: Interval(**value) for name, value in record["systems"].items()}
    records.write_figures(figures, {"challenge-metric": systems["tuned"].metric})
    for name, title in figures_module.SYSTEMS.items():
        print(f"  {title:42}{reporting.interval(systems[name])}")
    print(f"  {evaluate.verdict(systems)}")
    for name, trial in record["precisions"].items():
        if name != "float32":
            said = "offered" if trial["offered"] else "not offered"
            print(f"  {name}: {reporting.difference(Interval(**trial['gain']))} against float32, {said}")
    print(f"report: {objects.absolute(report) if report else place.report}")
