"""plan: list the images to predict, fix model and options, divide them into shards."""

from typing import Annotated, Literal

import typer

from jobs.options import AnyBodyPart


def main(
    images: Annotated[str, typer.Option(help="folder of DICOM images named ID.dcm")],
    model: Annotated[
        str, typer.Option(help="folder of a model released by evaluate, or of a registry, for its champion")
    ],
    out: Annotated[str, typer.Option(help="folder of the new prediction")],
    images_per_shard: Annotated[int, typer.Option(min=1, help="images that one pod predicts")] = 4000,
    shards: Annotated[
        int, typer.Option(min=0, help="number of shards; 0: computed from --images-per-shard")
    ] = 0,
    device: Annotated[
        Literal["cpu", "gpu"],
        typer.Option(help="predict with OpenVINO on the CPU, or with TensorFlow on the GPU"),
    ] = "cpu",
    precision: Annotated[
        str, typer.Option(help="auto, float32, bfloat16 or int8; auto: the fastest offered for this CPU")
    ] = "auto",
    operating_point: Annotated[
        Literal["tuned", "notebook"], typer.Option(help="thresholds that turn maps into boxes")
    ] = "tuned",
    any_body_part: AnyBodyPart = False,
    reuse: Annotated[
        str,
        typer.Option(
            help="folder of an earlier prediction, whose rows are taken where they would be the same"
        ),
    ] = "",
    figures: Annotated[
        str, typer.Option(help="folder for a file that contains only the number of shards")
    ] = "",
) -> None:
    from jobs import figures as outputs
    from lobar.evaluation import registry
    from lobar.inference import plan as plans
    from lobar.storage.layout import Prediction

    place = Prediction(out)
    request = plans.Request(
        images_per_shard, shards, device, precision, operating_point, any_body_part, reuse
    )
    plan = plans.make(images, registry.resolve(model), place, request)
    outputs.write(figures, {"shards": plan.inputs.shards})
    print(f"plan: {place.url}\n  model: {plan.inputs.model}")
    how = f"{plan.inputs.precision} on the {plan.inputs.device}"
    print(f"  {plan.inputs.count} images in {plan.inputs.shards} shards, {how}")
    if plan.inputs.reuse:
        print(f"  {plan.reused} rows are those of {plan.inputs.reuse}")
    if others := plan.other_objects:
        print(f"  {len(others)} other objects are not images: {', '.join(others[:3])}")
