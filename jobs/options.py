"""Options that several jobs have."""

from typing import Annotated

import typer

AnyBodyPart = Annotated[
    bool,
    typer.Option(
        "--any-body-part/--only-chests",
        help="read radiographs of any body part and modality in their headers, or only chests",
    ),
]
