"""The notebook's loss and metric, and its loss per image, in keras.ops, so that any Keras backend runs them.

All take masks (batch, rows, columns, 1): truth 0 or 1, prediction 0..1.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from lobar.training.keras_backend import keras, ops
from lobar.training.recipe import Loss


def iou_loss(truth: Any, predicted: Any) -> Any:
    """1 - soft IoU over the whole batch with one added to either side; a scalar in 0..1.

    Source: the notebook. It is taken over the batch, so it changes with the batch's size.
    """
    truth, predicted = ops.reshape(_wide(truth), [-1]), ops.reshape(_wide(predicted), [-1])
    return 1 - _soft_iou(truth, predicted, axis=None)


def iou_bce_loss(truth: Any, predicted: Any) -> Any:
    """Half binary cross-entropy per pixel (batch, rows, columns), half iou_loss. Source: the notebook."""
    truth, predicted = _wide(truth), _wide(predicted)
    return 0.5 * keras.losses.binary_crossentropy(truth, predicted) + 0.5 * iou_loss(truth, predicted)


def image_iou_bce_loss(truth: Any, predicted: Any) -> Any:
    """As iou_bce_loss with the IoU of each image, whose loss is then the same in any batch and on any GPU."""
    truth, predicted = _wide(truth), _wide(predicted)
    iou = _soft_iou(truth, predicted, axis=[1, 2, 3])
    return 0.5 * keras.losses.binary_crossentropy(truth, predicted) + 0.5 * (1 - iou[:, None, None])


LOSSES: MappingProxyType[Loss, Callable[[Any, Any], Any]] = MappingProxyType(
    {Loss.NOTEBOOK: iou_bce_loss, Loss.IMAGE: image_iou_bce_loss}
)


def mean_iou(truth: Any, predicted: Any) -> Any:
    """Mean over images of the IoU of rounded masks with one added to either side; a scalar.

    Source: the notebook, whose "union" is the sum of both areas; an empty mask scores well on negatives.
    """
    return ops.mean(_soft_iou(truth, ops.round(predicted), axis=[1, 2, 3]))


def _soft_iou(truth: Any, predicted: Any, axis: list[int] | None) -> Any:
    intersection = ops.sum(truth * predicted, axis=axis)
    areas = ops.sum(truth, axis=axis) + ops.sum(predicted, axis=axis)
    return (intersection + 1.0) / (areas - intersection + 1.0)


def _wide(masks: Any) -> Any:
    # half precision ends at 65,504, and an image of 256 x 256 has more pixels
    return ops.cast(masks, "float32")
