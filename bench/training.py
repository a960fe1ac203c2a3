"""Train systems within the same limits and score them: for the benchmarks of quality."""

import time
from dataclasses import dataclass

import numpy as np

from lobar.evaluation import operating_point
from lobar.evaluation.operating_point import Scored
from lobar.training import sampler, trainer
from lobar.training.keras_backend import keras
from lobar.training.recipe import Recipe
from lobar.training.record import TrainingInputs
from lobar.training.sampler import Split

BATCH = 16


@dataclass(frozen=True)
class Limit:
    """Where a training ends: after these seconds or images, whichever comes first."""

    seconds: float
    image_steps: float


@dataclass(frozen=True)
class Trained:
    """A trained network, and the seconds and images of its training."""

    network: keras.Model
    seconds: float
    image_steps: int


def train(inputs: TrainingInputs, split: Split, limit: Limit) -> Trained:
    """Train up to a limit, over which the learning rate follows the recipe's whole schedule."""
    recipe, seed = inputs.recipe, inputs.seed
    keras.backend.clear_session()  # the network before
    network = trainer.compile_network(recipe, seed)
    trainer.initialize(network, inputs)
    steps = len(split.exams) // recipe.batch_size
    started, images_seen, epoch, seconds = time.monotonic(), 0, 0, 0.0
    while True:
        for images, masks in sampler.batches(split, recipe, seed, recipe.batch_size, epoch):
            done = max(seconds / limit.seconds, images_seen / limit.image_steps)
            at = int(done * recipe.epochs * steps)
            network.optimizer.learning_rate = trainer.learning_rates(recipe, at // steps, steps)[at % steps]
            network.train_on_batch(images, masks)
            images_seen += len(images)
            seconds = time.monotonic() - started
            if images_seen >= limit.image_steps or seconds >= limit.seconds:
                return Trained(network, seconds, images_seen)
        epoch += 1


def image_steps(recipe: Recipe, count: int) -> int:
    """How many images a recipe's whole training on `count` images takes: full batches only."""
    return recipe.epochs * (count // recipe.batch_size) * recipe.batch_size


def predict(network: keras.Model, split: Split) -> list[Scored]:
    """What tuning needs of each image of a split."""
    starts = range(0, len(split.exams), BATCH)
    maps = np.concatenate(
        [network.predict_on_batch(split.images[at : at + BATCH, ..., None]) for at in starts]
    )
    return [
        operating_point.score_map(exam, probabilities)
        for exam, probabilities in zip(split.exams, maps[..., 0], strict=True)
    ]
