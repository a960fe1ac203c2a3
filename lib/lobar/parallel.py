"""Threads within bounds: how many CPUs this process may use, and a map that does not run ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lobar.errors import InputError

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


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Iterator[R]:
    """Yield function(item) in order, from `workers` threads that take at most `ahead` items in advance.

    Executor.map would take every item at once, and hold every result that nobody has asked for yet.
    """
    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
