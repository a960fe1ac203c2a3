"""summary: write a one-page summary of a finished workflow: how it ended and what it left."""

from typing import Annotated, Literal

import typer


def main(
    workflow: Annotated[str, typer.Option(help="name of the workflow")],
    status: Annotated[Literal["Succeeded", "Failed", "Error"], typer.Option(help="status of the workflow")],
    seconds: Annotated[float, typer.Option(help="duration of the workflow in seconds")],
    chain: Annotated[
        Literal["full", "predict", "retrain", "demo-data"],
        typer.Option(help="entrypoint of the workflow; decides which results are listed"),
    ],
    out: Annotated[str, typer.Option(help="file for the summary")],
    failures: Annotated[str, typer.Option(help="Argo's JSON list of the failed nodes")] = "",
    model: Annotated[str, typer.Option(help="folder of the model (full, retrain)")] = "",
    prediction: Annotated[str, typer.Option(help="folder of the prediction (full, predict)")] = "",
    registry: Annotated[str, typer.Option(help="folder of the registry (retrain)")] = "",
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
