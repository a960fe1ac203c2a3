"""summary: say in one page how a workflow ended and what it left."""

from enum import StrEnum
from typing import Annotated

import typer


class Status(StrEnum):
    succeeded = "Succeeded"
    failed = "Failed"
    error = "Error"


def main(
    workflow: Annotated[str, typer.Option(help="its name")],
    status: Annotated[Status, typer.Option(help="how it ended")],
    seconds: Annotated[float, typer.Option(help="how long it took")],
    out: Annotated[str, typer.Option(help="put the page there")],
    failures: Annotated[str, typer.Option(help="Argo's list of the nodes that failed, JSON")] = "",
    model: Annotated[str, typer.Option(help="the model it made")] = "",
    prediction: Annotated[str, typer.Option(help="the prediction it made")] = "",
    registry: Annotated[str, typer.Option(help="the registry it wrote to")] = "",
) -> None:
    from lobar import artifacts, storage, summary

    lines = summary.ended(workflow, status.value, seconds, failures)
    print("\n".join(lines), flush=True)  # the store that failed the workflow may fail what follows too
    left = summary.left(
        artifacts.Model(storage.absolute(model)) if model else None,
        artifacts.Prediction(storage.absolute(prediction)) if prediction else None,
        artifacts.Registry(storage.absolute(registry)) if registry else None,
    )
    print("\n".join(left))
    storage.publish(out, ("\n".join([*lines, *left]) + "\n").encode())
