"""Make a chest-like data set in the shape of the RSNA challenge, for trials and tests."""

from typing import Annotated

import typer


def main(
    out: Annotated[str, typer.Option(help="folder or URL for images, labels and groups")],
    train: Annotated[int, typer.Option(min=1, help="labelled images")] = 1500,
    test: Annotated[int, typer.Option(min=0, help="images without labels")] = 200,
    prevalence: Annotated[float, typer.Option(min=0, max=1, help="share of images with opacities")] = 0.36,
    seed: Annotated[int, typer.Option(min=0, help="another seed makes other images")] = 0,
) -> None:
    """Make a chest-like data set in RSNA's shape: drawings, for trials and tests, of no medical worth."""
    from lobar.synthetic import phantoms

    options = phantoms.Options(train=train, test=test, prevalence=prevalence, seed=seed)
    print(phantoms.make(out, options))
    print(f"next: label-index --labels {out}/train_labels.csv --images {out}/train_images")
