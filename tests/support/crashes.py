"""A store that numbers the operations of a job, and lets it die or go wrong at a chosen one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

from lobar.storage.filesystem import Place

CHANGES = ("pipe_file", "put_file", "rm_file")


class Kind(StrEnum):
    """What happens at an operation."""

    before = "dies before it"
    after = "dies after it"
    lost = "its reply is lost"
    second = "a second writer comes first"


class Death(BaseException):
    """The process is gone: no handler of the job's may catch it, and nothing more reaches the store."""


@dataclass
class Numbering:
    """Numbers every operation and notes it as `operation path`; one of them may go wrong."""

    operations: list[str] = field(default_factory=list)
    kind: Kind | None = None
    at: int = 0
    other: Callable[[], None] = lambda: None
    dead: bool = False

    async def ask(self, place: Place, operation: str, *arguments: Any, **options: Any) -> Any:
        """What stands in for Place.ask."""
        if self.dead:
            raise Death
        # of all operations put_file alone has its object second
        self.operations.append(f"{operation} {arguments[0] if operation == 'put_file' else place.path}")
        now = self.kind if len(self.operations) == self.at else None
        if now is Kind.before:
            self.dead = True
            raise Death
        if now is Kind.second:
            self.other()
        try:
            return getattr(place.fs, operation)(place.path, *arguments, **options)
        finally:
            # whatever the store answers does not come
            if now is Kind.after:
                self.dead = True
                raise Death
            if now is Kind.lost:
                raise ConnectionResetError("the reply is lost")


@contextmanager
def numbered(
    kind: Kind | None = None, at: int = 0, other: Callable[[], None] = lambda: None
) -> Iterator[Numbering]:
    """Number what a job asks of memory:// within the block; at number `at` something happens."""
    numbering = Numbering(kind=kind, at=at, other=other)

    async def ask(place: Place, operation: str, *arguments: Any, **options: Any) -> Any:
        return await numbering.ask(place, operation, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "ask", ask)
        yield numbering
