"""The notebook's loss and metric, in keras.ops, so that any Keras backend runs them.

All take masks (batch, rows, columns, 1): truth 0 or 1, prediction 0..1.
"""

from typing import Any

from lobar.backend import keras, ops


def iou_loss(truth: Any, predicted: Any) -> Any:
    """1 - soft IoU over the whole batch with one added to either side; a scalar in 0..1.

    Source: the notebook. It is taken over the batch, so it changes with the batch's size.
    """
    truth, predicted = ops.reshape(truth, [-1]), ops.reshape(predicted, [-1])
    intersection = ops.sum(truth * predicted)
    return 1 - (intersection + 1.0) / (ops.sum(truth) + ops.sum(predicted) - intersection + 1.0)


def iou_bce_loss(truth: Any, predicted: Any) -> Any:
    """Half binary cross-entropy per pixel (batch, rows, columns), half iou_loss. Source: the notebook."""
    return 0.5 * keras.losses.binary_crossentropy(truth, predicted) + 0.5 * iou_loss(truth, predicted)


def mean_iou(truth: Any, predicted: Any) -> Any:
    """Mean over images of the IoU of rounded masks with one added to either side; a scalar.

    Source: the notebook, whose "union" is the sum of both areas; an empty mask scores well on negatives.
    """
    predicted = ops.round(predicted)
    intersection = ops.sum(truth * predicted, axis=[1, 2, 3])
    areas = ops.sum(truth, axis=[1, 2, 3]) + ops.sum(predicted, axis=[1, 2, 3])
    return ops.mean((intersection + 1.0) / (areas - intersection + 1.0))
