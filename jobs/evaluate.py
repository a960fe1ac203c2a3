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

    from lobar import artifacts, evaluation, storage
    from lobar import report as reporting
    from lobar.tuning import Interval

    place = artifacts.Model(storage.absolute(model))
    data = artifacts.Dataset(storage.absolute(dataset))
    inputs = evaluation.inputs_of(place, data)
    advice = "a model is released once; train another one for other data"
    if artifacts.already(place.release, inputs, "evaluate", advice):
        record = artifacts.read_record(place.evaluation, "evaluate")
    else:
        found = evaluation.score(place, data)
        training = artifacts.read_record(place.training, "train")
        page = reporting.render(
            found, storage.read(place.history), training, json.loads(storage.read(data.summary))
        )
        storage.publish(place.report, page)
        record = evaluation.release(place, data, found)
    if report:
        storage.publish(report, storage.read(place.report))
    print(f"challenge metric on {record['images']} validation images, {record['positive']} positive"
          " (95 % interval over people):")  # fmt: skip
    systems = {name: Interval(**value) for name, value in record["systems"].items()}
    artifacts.write_figures(figures, {"challenge-metric": systems["tuned"].metric})
    for name, title in reporting.SYSTEMS.items():
        print(f"  {title:42}{reporting.interval(systems[name])}")
    print(f"  {evaluation.verdict(systems)}")
    for name, trial in record["precisions"].items():
        if name != "float32":
            said = "offered" if trial["offered"] else "not offered"
            print(f"  {name}: {reporting.difference(Interval(**trial['gain']))} against float32, {said}")
    print(f"report: {storage.absolute(report) if report else place.report}")
