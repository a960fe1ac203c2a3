"""Typed records: one JSON object each, created last, so that what it names is complete.

A record is a dataclass with the `format` of its fields, its `inputs` (what it was made from) and `created`
(when). It is created and never overwritten: the same work on the same inputs finds its record, other work in
the same place is rejected. The data that a record names are objects named by their content, so they never
change either.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import msgspec

from lobar.core.errors import AbsentError, InputError
from lobar.storage import objects

ELSEWHERE = "choose another place"


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of all records. A subclass sets MADE_BY, the job that makes it, and the dataclass of its `inputs`.

    A subclass whose fields change in meaning or in name raises FORMAT.
    """

    FORMAT: ClassVar[int] = 1
    MADE_BY: ClassVar[str]

    inputs: Any
    format: int = 0
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        if not self.format:
            object.__setattr__(self, "format", self.FORMAT)


R = TypeVar("R", bound=Record)


def sha256(data: bytes) -> str:
    """Digest of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """Digest of a JSON value or a dataclass, independent of the order of its keys."""
    return sha256(json.dumps(msgspec.to_builtins(value), sort_keys=True).encode())


def encode(record: Record) -> bytes:
    """A record as JSON that people can read."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def read(url: str, kind: type[R]) -> R:
    """A record. Raises AbsentError naming the job that makes it, InputError if it is not such a record."""
    try:
        data = objects.read(url)
    except AbsentError as error:
        raise AbsentError(f"{url}: not there; run {kind.MADE_BY} first, or check the URL") from error
    again = f"restore it, or run {kind.MADE_BY} again in another place"
    try:
        values = msgspec.json.decode(data)
    except ValueError as error:
        raise InputError(f"{url}: not a JSON record ({error}); {again}") from error
    version = values.get("format") if isinstance(values, dict) else None
    if version != kind.FORMAT:
        raise InputError(f"{url}: a record of format {version!r}; this lobar reads {kind.FORMAT}; {again}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{url}: not a record of {kind.MADE_BY} ({error}); {again}") from error


def find(url: str, kind: type[R], inputs: object, otherwise: str = ELSEWHERE) -> R | None:
    """The record at `url` if it was made from these inputs, None if there is none yet.

    Raises InputError if it was made from others; its text names what differs and ends with `otherwise`.
    """
    try:
        record = read(url, kind)
    except AbsentError:
        return None
    _check_inputs(url, record, inputs, otherwise)
    return record


def create(url: str, record: R, otherwise: str = ELSEWHERE) -> R:
    """Create a record, the last object of its kind, and return the one that is there now.

    If another writer was first, its record stays. Raises InputError if its inputs differ.
    """
    if objects.create(url, encode(record)):
        return record
    existing = read(url, type(record))
    _check_inputs(url, existing, record.inputs, otherwise)
    return existing


def _check_inputs(url: str, record: Record, inputs: object, otherwise: str) -> None:
    old, new = msgspec.to_builtins(record.inputs), msgspec.to_builtins(inputs)
    if old == new:
        return
    differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    changes = "; ".join(f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in differing[:3])
    setting = "out" if otherwise == ELSEWHERE else ""
    raise InputError(f"{url}: made from other inputs ({changes}); {otherwise}", setting)


def put(named: Callable[[str], str], data: bytes) -> str:
    """Put data under the URL that `named` makes of their SHA-256, and return the SHA-256."""
    name = sha256(data)
    objects.publish(named(name), data)
    return name


def get(named: Callable[[str], str], name: str) -> bytes:
    """The data whose SHA-256 a record names. Raises InputError if their content has another."""
    url = named(name)
    data = objects.read(url)
    if sha256(data) != name:
        raise InputError(
            f"{url}: its content is not the one recorded (SHA-256 {name[:12]}…); it was altered, restore it"
        )
    return data
