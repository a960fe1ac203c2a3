"""predict: find boxes on the images of one shard."""

from typing import Annotated

import typer


def main(
    prediction: Annotated[str, typer.Option(help="the folder that plan made")],
    shard: Annotated[int, typer.Option(min=0, help="which shard, from 0")],
    max_refused: Annotated[float, typer.Option(min=0, max=1, help="share of images that may be refused")] = 0,
) -> None:
    from lobar import artifacts, storage
    from lobar import prediction as predicting

    done = predicting.run(artifacts.Prediction(storage.absolute(prediction)), shard, max_refused)
    print(f"shard {shard}: {done.rows} rows, {done.with_boxes} with boxes, {len(done.refused)} refused")
