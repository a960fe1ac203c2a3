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
    from lobar.evaluation.report import summary
    from lobar.storage import objects
    from lobar.storage.layout import Model, Prediction, Registry

    lines = summary.ended(workflow, status.value, seconds, failures)
    print("\n".join(lines), flush=True)  # the store that failed the workflow may fail what follows too
    left = summary.left(
        Model(objects.absolute(model)) if model else None,
        Prediction(objects.absolute(prediction)) if prediction else None,
        Registry(objects.absolute(registry)) if registry else None,
    )
    print("\n".join(left))
    objects.publish(out, ("\n".join([*lines, *left]) + "\n").encode())
