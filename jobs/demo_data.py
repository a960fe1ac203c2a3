"""demo-data: generate a synthetic dataset in the format of the RSNA challenge."""

from typing import Annotated

import typer


def main(
    out: Annotated[str, typer.Option(help="folder for images, labels and groups, a path or URL")],
    train: Annotated[int, typer.Option(min=1, help="number of labelled images")] = 1500,
    test: Annotated[int, typer.Option(min=0, help="number of images without labels")] = 200,
    prevalence: Annotated[float, typer.Option(min=0, max=1, help="share of images with opacities")] = 0.36,
    seed: Annotated[int, typer.Option(min=0, help="seed of the random generator")] = 0,
) -> None:
    """Generate synthetic chest X-rays in RSNA's format, to try lobar without patient data."""
    from lobar.synthetic import phantoms

    options = phantoms.Options(train=train, test=test, prevalence=prevalence, seed=seed)
    print(f"demo-data: {phantoms.make(out, options)}")
    print(f"  next: label-index --labels {out}/train_labels.csv --images {out}/train_images")
