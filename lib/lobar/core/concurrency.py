"""How many CPUs this process may use, and maps over threads that keep order and limit work in progress."""

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

    Raises InputError if LOBAR_CPUS is not a whole number above zero.
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
    """Yield function(item) in order, computed by `workers` threads at most `ahead` items in advance."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield from in_order(lambda item: pool.submit(function, item), items, ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    submit: Callable[[T], Future[R]],
    items: Iterable[T],
    ahead: int,
    weight: Callable[[T], int] = lambda item: 1,
) -> Iterator[R]:
    """Yield the results of submit(item) in order, with items of total weight `ahead` in progress at most.

    Executor.map would submit every item at once, and keep every result that has not been consumed yet.
    """
    pending: deque[tuple[Future[R], int]] = deque()
    total = 0
    try:
        for item in items:
            pending.append((submit(item), weight(item)))
            total += pending[-1][1]
            while total >= ahead:
                future, finished = pending.popleft()
                total -= finished
                yield future.result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        for future, _ in pending:
            future.cancel()
