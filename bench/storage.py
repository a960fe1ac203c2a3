"""Reading many small objects from S3: lobar compared with fsspec's `cat` and with one object at a time.

The S3 server is a real one on loopback, used without a delay and with a latency of 30 ms.
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

from bench import peak
from bench.table import Row, median_seconds
from dev import servers
from lobar.core import console
from lobar.core.concurrency import in_order
from lobar.storage import filesystem, objects

OBJECTS = 1500
OBJECT_BYTES = 130_000
ONE_AT_A_TIME = 100  # objects; all of them would take a minute with latency
LATENCY_MS = 30
ROOT = "s3://lobar/bench"


def rows() -> Iterator[Row]:
    """Objects per second for each way to read, and the peak memory for the set and for ten times as many."""
    with tempfile.TemporaryDirectory() as folder, servers.serve("s3", Path(folder)) as server:
        servers.make_bucket(server)
        os.environ.update(server.environment)
        body = os.urandom(OBJECT_BYTES)
        names = (objects.join(ROOT, f"{i:05d}") for i in range(OBJECTS))
        list(
            in_order(lambda url: filesystem.submit(filesystem.locate(url).call("pipe_file", body)), names, 32)
        )
        yield from _compare("loopback", server.endpoint, {"fs.cat": "×2.5"})
        with latency(server.endpoint) as delayed:
            yield from _compare(f"{LATENCY_MS} ms latency", delayed, {"one at a time": "×20"})
        for times in (1, 10):
            megabytes = peak_megabytes(server.endpoint, times)
            yield Row(f"peak memory of reading {times * OBJECTS} such objects", "", f"{megabytes} MB")


def _compare(network: str, endpoint: str, targets: dict[str, str]) -> Iterator[Row]:
    """Two rows: reading with lobar compared with each other way to read."""
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    filesystem._filesystem.cache_clear()
    items = objects.list_objects(ROOT)
    urls = [item.url for item in items]
    plain = fsspec.filesystem("s3", skip_instance_cache=True)
    single = fsspec.filesystem("s3", skip_instance_cache=True, max_concurrency=1)
    ways: dict[str, Callable[[], int]] = {
        "lobar": lambda: _count_complete(items),
        "fs.cat": lambda: len(plain.cat(urls)),
        "one at a time": lambda: len([single.cat_file(url) for url in urls[:ONE_AT_A_TIME]]),
    }
    seconds = median_seconds(**ways)
    counts = {name: ONE_AT_A_TIME if name == "one at a time" else OBJECTS for name in ways}
    rates = {name: counts[name] / seconds[name] for name in ways}
    for other in ("fs.cat", "one at a time"):
        ratio = f"×{rates['lobar'] / rates[other]:.1f}"
        what = f"objects/s of {OBJECT_BYTES // 1000} KB from S3, {network}, compared with {other}"
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


def peak_megabytes(endpoint: str, times: int) -> int:
    """Peak memory of a process that reads the set of objects `times` times, in one stream."""
    environment = {**os.environ, "AWS_ENDPOINT_URL": endpoint}
    command = [sys.executable, "-m", "bench.storage", "--peak", str(times)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def _count_complete(items: list[objects.Object]) -> int:
    """Read objects with lobar, and count those of the expected size."""
    bodies = (body for _, body in objects.read_many(items))
    return sum(isinstance(body, bytes) and len(body) == OBJECT_BYTES for body in bodies)


def read_all(times: int) -> int:
    """Read the set of objects `times` times, and return this process' peak memory in megabytes."""
    items = objects.list_objects(ROOT) * times
    assert _count_complete(items) == len(items)
    return peak.megabytes()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(read_all(int(sys.argv[2])))
        console.exit_process(0)
