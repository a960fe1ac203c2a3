"""predict: predict the boxes of one shard."""

from typing import Annotated

import typer


def main(
    prediction: Annotated[str, typer.Option(help="folder of the prediction, made by plan")],
    shard: Annotated[int, typer.Option(min=0, help="number of the shard, from 0")],
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="share of images that may be rejected")
    ] = 0,
) -> None:
    from lobar.inference import shard as shards
    from lobar.storage.layout import Prediction

    record = shards.run(Prediction(prediction), shard, max_rejected)
    rejected = len(record.rejected)
    print(f"shard {shard}: {record.rows} rows, {record.with_boxes} with boxes, {rejected} rejected")
