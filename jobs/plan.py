"""plan: list the images to predict, fix model and options, cut into shards."""

from enum import StrEnum
from typing import Annotated

import typer


class Device(StrEnum):
    cpu = "cpu"
    gpu = "gpu"


class Point(StrEnum):
    tuned = "tuned"
    notebook = "notebook"


def main(
    images: Annotated[str, typer.Option(help="folder of DICOMs named ID.dcm")],
    model: Annotated[str, typer.Option(help="a model released by evaluate, or a registry for its champion")],
    shards: Annotated[int, typer.Option(min=1, help="pods that will predict, one shard each")],
    out: Annotated[str, typer.Option(help="the prediction's folder")],
    device: Annotated[Device, typer.Option(help="OpenVINO on the CPU or TensorFlow on the GPU")] = Device.cpu,
    precision: Annotated[str, typer.Option(help="of the network's arithmetic, or auto")] = "auto",
    operating_point: Annotated[Point, typer.Option(help="how maps become boxes")] = Point.tuned,
) -> None:
    from lobar.evaluation import registry
    from lobar.inference import plan
    from lobar.storage import objects
    from lobar.storage.layout import Model, Prediction, Registry

    place = Prediction(objects.absolute(out))
    released = Model(objects.absolute(model))
    if not objects.exists(released.release):
        released = registry.champion(Registry(released.url))
    made, others = plan.make(images, released, shards, place, device.value, precision, operating_point.value)
    print(f"plan: {place.url}")
    how = f"{made.inputs['precision']} on the {made.inputs['device']}"
    print(f"  model: {released.url}")
    print(f"  {made.inputs['count']} images in {shards} shards, {how}")
    if others:
        print(f"  {len(others)} other objects are no images: {', '.join(others[:3])}")
