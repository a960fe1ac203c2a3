"""Stored images to probability maps, by one engine or by several."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lobar.imaging import loader
from lobar.imaging.loader import Batch, Decoded, Item, Rejected
from lobar.inference.engines import Engine
from lobar.training.recipe import Recipe


def predict(
    engines: Mapping[str, Engine], items: Sequence[Item], recipe: Recipe, any_body_part: bool = True
) -> Iterator[tuple[Decoded[Item], dict[str, np.ndarray]] | Rejected[Item]]:
    """Yield each image, decoded once, with its map (size, size) of each engine, or why it is rejected.

    `any_body_part` is that of `loader.decoded`.
    """
    batch_size = next(iter(engines.values())).batch
    batches = loader.batches(items, recipe.image_size, recipe.sampling, batch_size, any_body_part)
    predicted: Iterator[tuple[Batch[Item], dict[str, np.ndarray]]] = ((batch, {}) for batch in batches)
    for name, engine in engines.items():
        predicted = _add_maps(name, engine, predicted)
    for batch, maps in predicted:
        position = 0
        for image in batch.images:
            if isinstance(image, Rejected):
                yield image
            else:
                yield image, {name: of_batch[position] for name, of_batch in maps.items()}
                position += 1


def _add_maps(
    name: str, engine: Engine, predicted: Iterator[tuple[Batch[Item], dict[str, np.ndarray]]]
) -> Iterator[tuple[Batch[Item], dict[str, np.ndarray]]]:
    keyed = (((batch, maps), batch.levels) for batch, maps in predicted)
    for (batch, maps), probabilities in engine.maps(keyed):
        yield batch, {**maps, name: probabilities}
