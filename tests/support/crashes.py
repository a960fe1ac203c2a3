"""Numbers the storage operations of a job, and injects a crash or a fault at a chosen one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

from lobar.storage.filesystem import Location

CHANGES = ("pipe_file", "put_file", "rm_file")


class Kind(StrEnum):
    """What happens at the chosen operation."""

    before = "crashes before it"
    after = "crashes after it"
    lost = "its reply is lost"
    second = "a second writer is faster"


class Crash(BaseException):
    """The process has ended: no handler of the job may catch this, and no operation reaches the store."""


@dataclass
class Numbering:
    """Records every operation as `operation path`, and injects `kind` at number `at` (from 1)."""

    operations: list[str] = field(default_factory=list)
    kind: Kind | None = None
    at: int = 0
    other: Callable[[], None] = lambda: None
    crashed: bool = False

    async def call(self, location: Location, operation: str, *arguments: Any, **options: Any) -> Any:
        """Replaces Location.call."""
        if self.crashed:
            raise Crash
        # put_file is the only operation whose first argument is the local file
        path = arguments[0] if operation == "put_file" else location.path
        self.operations.append(f"{operation} {path}")
        fault = self.kind if len(self.operations) == self.at else None
        if fault is Kind.before:
            self.crashed = True
            raise Crash
        if fault is Kind.second:
            self.other()
        try:
            return getattr(location.fs, operation)(location.path, *arguments, **options)
        finally:
            # replaces any result or error of the store
            if fault is Kind.after:
                self.crashed = True
                raise Crash
            if fault is Kind.lost:
                raise ConnectionResetError("the reply is lost")


@contextmanager
def numbered(
    kind: Kind | None = None, at: int = 0, other: Callable[[], None] = lambda: None
) -> Iterator[Numbering]:
    """Number a job's operations on memory:// within the block, and inject `kind` at number `at`."""
    numbering = Numbering(kind=kind, at=at, other=other)

    async def call(location: Location, operation: str, *arguments: Any, **options: Any) -> Any:
        return await numbering.call(location, operation, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Location, "call", call)
        yield numbering
