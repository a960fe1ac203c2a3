"""train: fit a segmentation network on a dataset."""

from enum import StrEnum
from typing import Annotated

import typer


class Sampling(StrEnum):
    area = "area"
    notebook = "notebook"


class Loss(StrEnum):
    notebook = "notebook"
    image = "image"


class Precision(StrEnum):
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


def main(
    dataset: Annotated[str, typer.Option(help="a dataset made by label-index")],
    out: Annotated[str, typer.Option(help="the model's folder")],
    network: Annotated[str, typer.Option(help="which network")] = "notebook",
    sampling: Annotated[Sampling, typer.Option(help="how images are brought to size")] = Sampling.area,
    image_size: Annotated[int, typer.Option(min=16, help="pixels a side")] = 256,
    channels: Annotated[int, typer.Option(min=1, help="of the first layer")] = 32,
    blocks: Annotated[int, typer.Option(min=1, help="residual blocks a level")] = 2,
    depth: Annotated[int, typer.Option(min=1, max=6, help="levels, each half as wide")] = 4,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    schedule_epochs: Annotated[int, typer.Option(min=0, help="of the cosine; 0: as many as epochs")] = 0,
    loss: Annotated[
        Loss, typer.Option(help="its IoU over a batch, as the notebook's, or an image")
    ] = Loss.notebook,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    learning_rate: Annotated[float, typer.Option(min=0, help="at the start")] = 0.001,
    positives: Annotated[
        float, typer.Option(min=0, max=1, help="share of positive images that is drawn; 0: as they come")
    ] = 0.5,
    precision: Annotated[Precision, typer.Option(help="of the arithmetic in training")] = Precision.float32,
    seed: Annotated[int, typer.Option(min=0, help="of weights, order and flips")] = 0,
    init: Annotated[str, typer.Option(help="begin with the weights of this model")] = "",
) -> None:
    from lobar.storage import objects
    from lobar.storage.layout import Dataset, Model
    from lobar.training import trainer
    from lobar.training.recipe import Options

    options = Options(
        network=network,
        sampling=Sampling(sampling),
        image_size=image_size,
        channels=channels,
        blocks=blocks,
        depth=depth,
        epochs=epochs,
        schedule_epochs=schedule_epochs or epochs,
        loss=loss.value,
        batch_size=batch_size,
        learning_rate=learning_rate,
        positives=positives,
        precision=precision.value,
        seed=seed,
        init=objects.absolute(init) if init else "",
    )
    model = Model(objects.absolute(out))
    record = trainer.run(Dataset(objects.absolute(dataset)), model, options)
    print(f"model: {model.url}\n  {record['parameters']:,} parameters, {epochs} epochs")
    if record["rejected"]:
        named = ", ".join(list(record["rejected"])[:3])
        print(f"  {len(record['rejected'])} images left out: {named}; all in {model.training}")
