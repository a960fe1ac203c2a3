"""Reads elements of a DICOM header, however they are written, or rejects the image and names the element.

An element that is present and empty counts as absent.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import cv2
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from lobar.core.errors import LobarError

SEVERAL = (MultiValue, Sequence, list, tuple)
EMPTY = (None, "", b"")


class RejectedImage(ValueError):
    """An image that cannot be used. The text says what was found and contains nothing about the patient."""


@contextmanager
def as_rejection(what: str) -> Iterator[None]:
    """Turn any error that a damaged file causes in a parser or decoder into a RejectedImage that says `what`.

    MemoryError, ImportError (a missing decoder) and LobarError are not the file's fault and stay as they are.
    """
    try:
        yield
    except (RejectedImage, MemoryError, ImportError, LobarError):
        raise
    except InvalidDicomError:
        raise RejectedImage("not a DICOM file: the DICM prefix is missing") from None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise RejectedImage(f"{what}: OpenCV cannot read it") from None
    except Exception:  # pydicom and the decoders share no base class
        raise RejectedImage(what) from None


def described(keyword: str) -> str:
    """The keyword and tag of an element: `WindowWidth (0028,1051)`."""
    tag = _tag(keyword)
    return f"{keyword} ({tag.group:04X},{tag.element:04X})"


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def values(dataset: Dataset, keyword: str) -> list[Any]:
    """All values of an element; none if it is absent or empty."""
    tag = _tag(keyword)
    if tag not in dataset:
        return []
    try:
        # not Dataset.get(keyword), which takes an AttributeError of the conversion for an absent element
        value = dataset[tag].value
    except Exception:
        with as_rejection(f"{described(keyword)} cannot be read"):
            raise
    if isinstance(value, SEVERAL):
        return list(value) if any(each not in EMPTY for each in value) else []
    return [] if value in EMPTY else [value]


def numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """The values of a numeric element of any VR; None for an empty one among several."""
    found: list[float | None] = []
    for value in values(dataset, keyword):
        try:
            number = None if value in (None, "") else float(_without_padding(value))
        except (TypeError, ValueError, OverflowError):
            raise RejectedImage(f"{described(keyword)} is not a number") from None
        if number is not None and not math.isfinite(number):
            raise RejectedImage(f"{described(keyword)} is not a finite number")
        found.append(number)
    return found


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value of a numeric element; None if it is absent or empty."""
    return next(iter(numbers(dataset, keyword)), None)


def whole(dataset: Dataset, keyword: str, default: int) -> int:
    """The value of an element of one whole number; `default` if it is absent or empty."""
    found = numbers(dataset, keyword)
    if len(found) > 1:
        raise RejectedImage(f"{described(keyword)} has {len(found)} values; one is expected")
    if not found or (value := found[0]) is None:
        return default
    if not value.is_integer():
        raise RejectedImage(f"{described(keyword)} is {value:g}; a whole number is expected")
    return int(value)


def text(dataset: Dataset, keyword: str) -> str:
    """The first value of a text element in capitals; empty if it is absent or empty."""
    value = next(iter(values(dataset, keyword)), None) or ""
    return str(_without_padding(value)).strip().upper()


def _without_padding(value: Any) -> Any:
    """Text of a VR that pydicom leaves as bytes, without the NUL that makes its length even."""
    return value.decode("ascii", "replace").rstrip(" \0") if isinstance(value, bytes) else value
