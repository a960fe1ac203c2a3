"""Weights in PyTorch's file format of before 1.6, read without PyTorch and without running what they name."""

import io
import math
import pickle
import pickletools
import struct
from collections import OrderedDict
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from lobar.core.errors import InputError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
OPCODES = frozenset(
    {
        "APPEND", "APPENDS", "BINGET", "BININT", "BININT1", "BININT2", "BINPERSID", "BINPUT", "BINUNICODE",
        "BUILD", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "LONG1", "LONG_BINGET", "LONG_BINPUT",
        "MARK", "NEWFALSE", "NEWTRUE", "NONE", "PROTO", "REDUCE", "SETITEM", "SETITEMS", "STOP", "TUPLE",
        "TUPLE1", "TUPLE2", "TUPLE3",
    }
)  # fmt: skip
# what Python raises for a damaged pickle
ERRORS = (pickle.UnpicklingError, ValueError, TypeError, LookupError, EOFError, AttributeError, OverflowError)
TYPES: MappingProxyType[str, np.dtype] = MappingProxyType(
    {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
)


class _Storage(NamedTuple):
    """Values that tensors are views of: what the file calls their type and them. They follow the pickles."""

    kind: str
    key: str


class _View(NamedTuple):
    """A tensor: its storage, and offset, shape and strides in it, in values."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, values: np.ndarray) -> np.ndarray:
        """The tensor as a new array. Raises ValueError if it exceeds its storage."""
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or min(numbers) < 0 or 0 in self.shape:
            raise ValueError(f"a tensor has offset, shape and strides {numbers}")
        steps = zip(self.shape, self.strides, strict=True)
        if self.offset + sum((size - 1) * stride for size, stride in steps) >= len(values):
            raise ValueError(f"a tensor of shape {self.shape} exceeds its {len(values)} values")
        if math.prod(self.shape) > len(values):
            raise ValueError(f"a tensor of shape {self.shape} repeats its {len(values)} values")
        strides = tuple(stride * values.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


def _view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    view = _View(storage, offset, tuple(shape), tuple(strides))
    if not isinstance(storage, _Storage) or not all(type(n) is int for n in (offset, *shape, *strides)):
        raise pickle.UnpicklingError("a tensor is not a view of a storage")
    return view


class _Unpickler(pickle.Unpickler):
    """Knows the names that a file of tensors needs. Any other name is an error, before anything runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if module == "torch" and name in TYPES:
            return name
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not a part of weights")

    def persistent_load(self, pid: Any) -> Any:
        what, kind, key, *_ = pid
        if what != "storage" or kind not in TYPES or not isinstance(key, str):
            raise pickle.UnpicklingError(f"it refers to {pid!r}")
        return _Storage(kind, key)


def _load(file: io.BytesIO) -> Any:
    """The next pickle. Its instructions are checked first: some make Python reserve any amount of memory."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in OPCODES or (opcode.name == "LONG_BINPUT" and (argument or 0) > file.tell()):
            raise pickle.UnpicklingError(f"it has the instruction {opcode.name} {argument}")
    file.seek(start)
    return _Unpickler(file).load()


def parse(data: bytes, name: str) -> dict[str, np.ndarray]:
    """The arrays of a state dictionary, in the file's order, by their names.

    `name` is the file's, for errors. Raises InputError if it is another kind of file, incomplete, or names
    anything but tensors.
    """
    file = io.BytesIO(data)
    try:
        magic, protocol, _, state, keys = (_load(file) for _ in range(5))
        if (magic, protocol) != (MAGIC, PROTOCOL):
            raise ValueError(f"its mark is {magic!r}, its version {protocol!r}")
        if not isinstance(state, dict) or not all(isinstance(view, _View) for view in state.values()):
            raise ValueError("it is not a dictionary of tensors")
        kinds = {view.storage.key: view.storage.kind for view in state.values()}
        values = {key: _values(file, TYPES[kinds[key]]) for key in keys}
        return {tensor: view.of(values[view.storage.key]) for tensor, view in state.items()}
    except ERRORS as error:
        raise InputError(f"{name}: not PyTorch weights that may be read: {error}") from error


def _values(file: io.BytesIO, dtype: np.dtype) -> np.ndarray:
    """The next storage: the number of its values in 8 bytes, then the values."""
    header = file.read(8)
    count = struct.unpack("<q", header)[0] if len(header) == 8 else -1
    body = file.read(max(count, 0) * dtype.itemsize)
    if count < 0 or len(body) < count * dtype.itemsize:
        raise ValueError("it is truncated")
    return np.frombuffer(body, dtype)
