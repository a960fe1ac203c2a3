"""Threads within bounds: how many CPUs this process may use, and a map that does not run ahead."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lobar.core.errors import InputError

T = TypeVar("T")
R = TypeVar("R")


def cpus() -> int:
    """CPUs this process may use: LOBAR_CPUS (a pod's limit, by the downward API), else the affinity mask.

    Raises InputError where LOBAR_CPUS is not a whole number above zero.
    """
    limit = os.environ.get("LOBAR_CPUS")
    if limit is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not limit.isdecimal() or int(limit) < 1:
        raise InputError(f"LOBAR_CPUS is {limit!r}; give a whole number of CPUs, 1 or more")
    return int(limit)


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int
) -> Generator[R, None, None]:
    """Yield function(item) in order, from `workers` threads that take at most `ahead` items in advance."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield from in_order(lambda item: pool.submit(function, item), items, ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    start: Callable[[T], Future[R]],
    items: Iterable[T],
    ahead: int,
    weigh: Callable[[T], int] = lambda item: 1,
) -> Iterator[R]:
    """Yield the results of the work that `start` begins, in order, begun for items of weight `ahead` at most.

    Executor.map would take every item at once, and hold every result that nobody has asked for yet.
    """
    pending: deque[tuple[Future[R], int]] = deque()
    weight = 0
    try:
        for item in items:
            pending.append((start(item), weigh(item)))
            weight += pending[-1][1]
            while weight >= ahead:
                future, less = pending.popleft()
                weight -= less
                yield future.result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        for future, _ in pending:
            future.cancel()
