"""summary: say in one page how a workflow ended and what it left."""

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
    workflow: Annotated[str, typer.Option(help="its name")],
    status: Annotated[Status, typer.Option(help="how it ended")],
    seconds: Annotated[float, typer.Option(help="how long it took")],
    chain: Annotated[Chain, typer.Option(help="what it ran, and so what it may have left")],
    out: Annotated[str, typer.Option(help="put the page there")],
    failures: Annotated[str, typer.Option(help="Argo's list of the nodes that failed, JSON")] = "",
    model: Annotated[str, typer.Option(help="folder of the model of full and retrain")] = "",
    prediction: Annotated[str, typer.Option(help="folder of the prediction of full and predict")] = "",
    registry: Annotated[str, typer.Option(help="folder of the registry of retrain")] = "",
) -> None:
    from lobar.evaluation.report import summary
    from lobar.storage.layout import Model, Prediction, Registry
    from lobar.storage.objects import absolute, publish

    lines = summary.ended(workflow, status.value, seconds, failures)
    print("\n".join(lines), flush=True)  # the store that failed the workflow may fail what follows too
    left = summary.left(
        Model(absolute(model)) if model and chain in (Chain.full, Chain.retrain) else None,
        Prediction(absolute(prediction)) if prediction and chain in (Chain.full, Chain.predict) else None,
        Registry(absolute(registry)) if registry and chain is Chain.retrain else None,
    )
    print("\n".join(left))
    publish(out, ("\n".join([*lines, *left]) + "\n").encode())
