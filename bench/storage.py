"""Reading many small objects: lobar compared with fsspec's `cat` and with one object at a time.

The server of S3 is a real one on loopback, those of GCS and Azure are emulators. Each is used without a delay
and with a latency of 30 ms.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from bench import job
from bench.table import Row, median_seconds
from dev import servers, stores
from lobar.core import console
from lobar.core.concurrency import in_order
from lobar.storage import filesystem, objects

OBJECTS = 1500
OBJECT_BYTES = 130_000
ONE_AT_A_TIME = 100  # objects; all of them would take a minute with latency
LATENCY_MS = 30
NAMES: dict[stores.Kind, str] = {"s3": "S3", "gcs": "GCS (emulator)", "azure": "Azure Blob (emulator)"}
SINGLE_OPTIONS = {"s3": {"max_concurrency": 1}}  # else s3fs sends two requests for each object


def rows() -> Iterator[Row]:
    """Objects per second for each way to read; for S3 also the peak memory, for ten times as many too."""
    for kind, name in NAMES.items():
        if stores.find(kind) is None:
            yield Row(f"objects/s from {name}", "", "not installed")
        else:
            with tempfile.TemporaryDirectory() as folder, servers.serve(kind, Path(folder)) as server:
                yield from _of_store(server, name)


def _of_store(server: servers.Server, name: str) -> Iterator[Row]:
    _connect(server, server.endpoint)
    body, root = os.urandom(OBJECT_BYTES), f"{server.root}/bench"
    urls = (objects.join(root, f"{i:05d}") for i in range(OBJECTS))
    list(in_order(lambda url: filesystem.submit(filesystem.locate(url).call("pipe_file", body)), urls, 32))
    has_targets = server.kind == "s3"  # emulators are slow
    yield from _compare(root, f"{name}, loopback", {"fs.cat": "×2.5"} if has_targets else {})
    with latency(server.endpoint) as delayed:
        _connect(server, delayed)
        targets = {"one at a time": "×20"} if has_targets else {}
        yield from _compare(root, f"{name}, {LATENCY_MS} ms latency", targets)
    if server.kind == "s3":
        _connect(server, server.endpoint)
        for times in (1, 10):
            megabytes = peak_megabytes(root, times)
            yield Row(f"peak memory of reading {times * OBJECTS} such objects", "", f"{megabytes} MB")


def _connect(server: servers.Server, endpoint: str) -> None:
    """Point the drivers of this process to an endpoint of a server."""
    os.environ.update(server.environment_at(endpoint))
    filesystem._filesystem.cache_clear()


def _compare(root: str, store: str, targets: dict[str, str]) -> Iterator[Row]:
    """Two rows: reading with lobar compared with each other way to read."""
    items = objects.list_objects(root)
    urls, scheme = [item.url for item in items], root.partition("://")[0]
    plain = fsspec.filesystem(scheme, skip_instance_cache=True)
    single = fsspec.filesystem(scheme, skip_instance_cache=True, **SINGLE_OPTIONS.get(scheme, {}))
    ways: dict[str, Callable[[], int]] = {
        "lobar": lambda: _count_complete(items),
        "fs.cat": lambda: len(plain.cat(urls)),
        "one at a time": lambda: len([single.cat_file(url) for url in urls[:ONE_AT_A_TIME]]),
    }
    seconds = median_seconds(ways)
    counts = {name: ONE_AT_A_TIME if name == "one at a time" else OBJECTS for name in ways}
    rates = {name: counts[name] / seconds[name] for name in ways}
    for other in ("fs.cat", "one at a time"):
        ratio = f"×{rates['lobar'] / rates[other]:.1f}"
        what = f"objects/s of {OBJECT_BYTES // 1000} KB from {store}, compared with {other}"
        yield Row(what, f"{rates[other]:.0f}", f"{rates['lobar']:.0f}", ratio, targets.get(other, ""))


@contextmanager
def latency(endpoint: str) -> Iterator[str]:
    """The endpoint of a proxy that sends requests to another endpoint LATENCY_MS later."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = endpoint.removeprefix("http://")
    proxy = subprocess.Popen([sys.executable, "-m", "bench.latency", str(port), target, str(LATENCY_MS)])
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait()


def peak_megabytes(root: str, times: int) -> int:
    """Peak memory of a process that reads the set of objects `times` times, in one stream."""
    command = [sys.executable, "-m", "bench.storage", root, str(times)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _count_complete(items: list[objects.Object]) -> int:
    """Read objects with lobar, and count those of the expected size."""
    bodies = (body for _, body in objects.read_many(items))
    return sum(isinstance(body, bytes) and len(body) == OBJECT_BYTES for body in bodies)


def read_all(root: str, times: int) -> int:
    """Read the set of objects `times` times, and return this process' peak memory in megabytes."""
    items = objects.list_objects(root) * times
    assert _count_complete(items) == len(items)
    return job.megabytes()


if __name__ == "__main__":
    print(read_all(sys.argv[1], int(sys.argv[2])))
    console.exit_process(0)
