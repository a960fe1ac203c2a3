"""summary: report on one page how a workflow ended and what it stored."""

from typing import Annotated, Literal

import typer


def main(
    workflow: Annotated[str, typer.Option(help="name of the workflow")],
    status: Annotated[Literal["Succeeded", "Failed", "Error"], typer.Option(help="how it ended")],
    seconds: Annotated[float, typer.Option(help="how long it took")],
    chain: Annotated[
        Literal["full", "predict", "retrain", "demo-data"],
        typer.Option(help="what it ran, and so what it may have stored"),
    ],
    out: Annotated[str, typer.Option(help="URL or path of the page to write")],
    failures: Annotated[str, typer.Option(help="Argo's list of the nodes that failed, JSON")] = "",
    model: Annotated[str, typer.Option(help="folder of the model of full and retrain")] = "",
    prediction: Annotated[str, typer.Option(help="folder of the prediction of full and predict")] = "",
    registry: Annotated[str, typer.Option(help="folder of the registry of retrain")] = "",
) -> None:
    from lobar.evaluation.report import summary
    from lobar.storage.layout import Model, Prediction, Registry
    from lobar.storage.objects import publish

    lines = summary.ended(workflow, status, seconds, failures)
    print("\n".join(lines), flush=True)  # the store that failed the workflow may fail what follows too
    stored = summary.stored(
        Model(model) if model and chain in ("full", "retrain") else None,
        Prediction(prediction) if prediction and chain in ("full", "predict") else None,
        Registry(registry) if registry and chain == "retrain" else None,
    )
    print("\n".join(stored))
    publish(out, ("\n".join([*lines, *stored]) + "\n").encode())
