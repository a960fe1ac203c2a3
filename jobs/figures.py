"""Figures of a job as output parameters and metrics of Argo."""

from collections.abc import Mapping

from lobar.storage import objects


def write(folder: str, figures: Mapping[str, float | None]) -> None:
    """Write each figure to an object with its name that contains only the number; None is written as `NaN`.

    Nothing is written if `folder` is empty.
    """
    for name, value in figures.items() if folder else ():
        text = "NaN" if value is None else str(value)
        objects.publish(objects.join(folder, name), text.encode())
