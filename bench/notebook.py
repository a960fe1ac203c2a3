"""The original notebook, adapted to current library versions, for parity tests and benchmarks.

Differences from the notebook: a plain loop replaces keras.utils.Sequence, masks are float32, and resizing
uses anti_aliasing=False. The pixels printed in the notebook are multiples of 1/1020: each is the mean of the
central 2 x 2 pixels of a 4 x 4 block. Its missing cell is create_network(256, 32, n_blocks=2, depth=4).
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import pydicom
import tensorflow as tf
from keras import layers
from skimage import measure
from skimage.transform import resize

Locations = dict[str, list[list[int]]]


def read_locations(table: Path) -> Locations:
    """Boxes (x, y, width, height) of each positive patient in a label table."""
    locations: Locations = {}
    with table.open() as rows:
        reader = csv.reader(rows)
        next(reader, None)
        for patient, *location, pneumonia in reader:
            if pneumonia == "1":
                locations.setdefault(patient, []).append([int(float(value)) for value in location])
    return locations


def decode(path: Path) -> np.ndarray:
    """The pixels of a DICOM file."""
    return pydicom.dcmread(path).pixel_array


def load(
    path: Path, locations: Locations, size: int = 256, flip: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask (size, size, 1) of one file; `flip` mirrors both left to right."""
    image = decode(path)
    mask = np.zeros(image.shape)
    for x, y, width, height in locations.get(path.name.split(".")[0], []):
        mask[y : y + height, x : x + width] = 1
    image = shrink(image, size)
    mask = resize(mask, (size, size), mode="reflect", anti_aliasing=False) > 0.5
    if flip:
        image, mask = np.fliplr(image), np.fliplr(mask)
    return np.expand_dims(image, -1), np.expand_dims(mask, -1).astype("float32")


def shrink(image: np.ndarray, size: int = 256) -> np.ndarray:
    """Image resized to (size, size), in 0..1: the input of the network."""
    return resize(image, (size, size), mode="reflect", anti_aliasing=False)


def iou_loss(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    y_true = tf.reshape(y_true, [-1])
    y_pred = tf.reshape(y_pred, [-1])
    intersection = tf.reduce_sum(y_true * y_pred)
    score = (intersection + 1.0) / (tf.reduce_sum(y_true) + tf.reduce_sum(y_pred) - intersection + 1.0)
    return 1 - score


def iou_bce_loss(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    return 0.5 * keras.losses.binary_crossentropy(y_true, y_pred) + 0.5 * iou_loss(y_true, y_pred)


def mean_iou(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    y_pred = tf.round(y_pred)
    intersect = tf.reduce_sum(y_true * y_pred, axis=[1, 2, 3])
    union = tf.reduce_sum(y_true, axis=[1, 2, 3]) + tf.reduce_sum(y_pred, axis=[1, 2, 3])
    smooth = tf.ones(tf.shape(intersect))
    return tf.reduce_mean((intersect + smooth) / (union - intersect + smooth))


def create_downsample(channels: int, inputs: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.BatchNormalization(momentum=0.9)(inputs)
    x = layers.LeakyReLU(0)(x)
    x = layers.Conv2D(channels, 1, padding="same", use_bias=False)(x)
    return layers.MaxPool2D(2)(x)


def create_resblock(channels: int, inputs: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.BatchNormalization(momentum=0.9)(inputs)
    x = layers.LeakyReLU(0)(x)
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.LeakyReLU(0)(x)
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
    return layers.add([x, inputs])


def create_network(input_size: int, channels: int, n_blocks: int = 2, depth: int = 4) -> keras.Model:
    inputs = keras.Input(shape=(input_size, input_size, 1))
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(inputs)
    for _ in range(depth):
        channels = channels * 2
        x = create_downsample(channels, x)
        for _ in range(n_blocks):
            x = create_resblock(channels, x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.LeakyReLU(0)(x)
    x = layers.Conv2D(1, 1, activation="sigmoid")(x)
    outputs = layers.UpSampling2D(2**depth)(x)
    return keras.Model(inputs=inputs, outputs=outputs)


def cosine_annealing(epoch: int) -> float:
    rate, epochs = 0.001, 25
    return rate * (np.cos(np.pi * epoch / epochs) + 1.0) / 2


def prediction_string(pred: np.ndarray) -> str:
    """Boxes of a probability map (size, size, 1), for an image of 1024 x 1024 as the notebook assumes."""
    pred = resize(pred, (1024, 1024), mode="reflect", anti_aliasing=False)
    text = ""
    for region in measure.regionprops(measure.label(pred[:, :, 0] > 0.5)):
        y, x, y2, x2 = region.bbox
        height, width = y2 - y, x2 - x
        confidence = np.mean(pred[y : y + height, x : x + width])
        text += f"{confidence} {x} {y} {width} {height} "
    return text


def predict(
    network: keras.Model,
    paths: Sequence[Path],
    pixels: Callable[[Path], np.ndarray] = decode,
    batch_size: int = 25,
) -> dict[str, str]:
    """PredictionString of each file, predicted in batches; `pixels` decodes one file."""
    submission: dict[str, str] = {}
    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        images = np.array([np.expand_dims(shrink(pixels(path)), -1) for path in batch])
        for path, pred in zip(batch, network.predict(images, verbose=0), strict=True):
            submission[path.name.split(".")[0]] = prediction_string(pred)
    return submission
