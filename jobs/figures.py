"""Figures of a job as output parameters and metrics of Argo."""

from collections.abc import Mapping

from lobar.storage import objects


def write(folder: str, figures: Mapping[str, float | None]) -> None:
    """Put each figure as an object of its name that holds the number alone; one that does not exist is `NaN`.

    Nothing is put if `folder` is empty.
    """
    for name, value in figures.items() if folder else ():
        text = "NaN" if value is None else str(value)
        objects.publish(objects.join(folder, name), text.encode())
