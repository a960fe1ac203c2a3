"""summary: write a one-page summary of a finished workflow: how it ended and what it left."""

from enum import StrEnum
from typing import Annotated

import typer


class Status(StrEnum):
    succeeded = "Succeeded"
    failed = "Failed"
    error = "Error"


class Chain(StrEnum):
    full = "full"
    predict = "predict"
    retrain = "retrain"
    demo_data = "demo-data"


def main(
    workflow: Annotated[str, typer.Option(help="name of the workflow")],
    status: Annotated[Status, typer.Option(help="status of the workflow")],
    seconds: Annotated[float, typer.Option(help="duration of the workflow in seconds")],
    chain: Annotated[
        Chain, typer.Option(help="entrypoint of the workflow; decides which results are listed")
    ],
    out: Annotated[str, typer.Option(help="file for the summary")],
    failures: Annotated[str, typer.Option(help="Argo's JSON list of the failed nodes")] = "",
    model: Annotated[str, typer.Option(help="folder of the model (full, retrain)")] = "",
    prediction: Annotated[str, typer.Option(help="folder of the prediction (full, predict)")] = "",
    registry: Annotated[str, typer.Option(help="folder of the registry (retrain)")] = "",
) -> None:
    from lobar.evaluation.report import summary
    from lobar.storage.layout import Model, Prediction, Registry
    from lobar.storage.objects import absolute, publish

    lines = summary.ended(workflow, status.value, seconds, failures)
    print("\n".join(lines), flush=True)  # first, because a failing store may also fail the rest of this job
    left = summary.left(
        Model(absolute(model)) if model and chain in (Chain.full, Chain.retrain) else None,
        Prediction(absolute(prediction)) if prediction and chain in (Chain.full, Chain.predict) else None,
        Registry(absolute(registry)) if registry and chain is Chain.retrain else None,
    )
    print("\n".join(left))
    publish(out, ("\n".join([*lines, *left]) + "\n").encode())
