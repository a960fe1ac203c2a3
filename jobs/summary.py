"""summary: write a one-page summary of a finished workflow: how it ended, its tasks, and what it left."""

import os
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
    price_cpu_hour: Annotated[
        float, typer.Option(min=0, help="price of a CPU for an hour; 0: not known")
    ] = 0,
    price_gpu_hour: Annotated[
        float, typer.Option(min=0, help="price of a GPU for an hour; 0: not known")
    ] = 0,
    model: Annotated[str, typer.Option(help="folder of the model (full, retrain)")] = "",
    prediction: Annotated[str, typer.Option(help="folder of the prediction (full, predict)")] = "",
    registry: Annotated[str, typer.Option(help="folder of the registry (retrain)")] = "",
) -> None:
    from lobar.evaluation.report import summary
    from lobar.evaluation.report.times import Prices
    from lobar.storage.layout import Model, Prediction, Registry
    from lobar.storage.objects import publish

    lines = [summary.ended(workflow, status, seconds)]
    lines += summary.notify(os.environ.get("LOBAR_WEBHOOK_URL", "").strip(), lines[0])
    lines += [f"  {line}" for line in summary.tasks(workflow, Prices(price_cpu_hour, price_gpu_hour))]
    tasks = "".join(f"{line}\n" for line in lines)
    print(tasks, end="", flush=True)  # the store that failed the workflow may fail what follows too
    stored = summary.stored(
        Model(model) if model and chain in ("full", "retrain") else None,
        Prediction(prediction) if prediction and chain in ("full", "predict") else None,
        Registry(registry) if registry and chain == "retrain" else None,
    )
    results = "".join(f"{line}\n" for line in stored)
    print(results, end="")
    publish(out, (tasks + results).encode())
