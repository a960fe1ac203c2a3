"""Reading many small objects from S3: lobar beside fsspec as it comes and beside one read after the other.

A real S3 server on loopback, plainly and behind 30 ms of latency.
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
ONE_BY_ONE = 100  # enough for a rate, and does not take a minute
LATENCY_MS = 30
ROOT = "s3://lobar/bench"


def rows() -> Iterator[Row]:
    """Objects a second for each way of reading, and the memory that ten times as many take."""
    with tempfile.TemporaryDirectory() as folder, servers.serve("s3", Path(folder)) as server:
        servers.make_bucket(server)
        os.environ.update(server.environment)
        body = os.urandom(OBJECT_BYTES)
        names = (objects.join(ROOT, f"{i:05d}") for i in range(OBJECTS))
        list(
            in_order(lambda url: filesystem.start(filesystem.place_of(url).ask("pipe_file", body)), names, 32)
        )
        yield from _compare("loopback", server.endpoint, {"fs.cat": "×2.5"})
        with latency(server.endpoint) as slower:
            yield from _compare(f"{LATENCY_MS} ms latency", slower, {"one by one": "×20"})
        for times in (1, 10):
            megabytes = peak_megabytes(server.endpoint, times)
            yield Row(f"peak memory of reading {times * OBJECTS} such objects", "", f"{megabytes} MB")


def _compare(what: str, endpoint: str, wanted: dict[str, str]) -> Iterator[Row]:
    """Two rows: lobar's reading beside each other way, all in turn."""
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    filesystem._filesystem.cache_clear()
    items = objects.list_objects(ROOT)
    urls = [item.url for item in items]
    plain = fsspec.filesystem("s3", skip_instance_cache=True)
    single = fsspec.filesystem("s3", skip_instance_cache=True, max_concurrency=1)
    ways: dict[str, Callable[[], int]] = {
        "lobar": lambda: sum(len(body) == OBJECT_BYTES for _, body in objects.read_many(items)),
        "fs.cat": lambda: len(plain.cat(urls)),
        "one by one": lambda: len([single.cat_file(url) for url in urls[:ONE_BY_ONE]]),
    }
    seconds = median_seconds(**ways)
    read = {name: ONE_BY_ONE if name == "one by one" else OBJECTS for name in ways}
    rates = {name: read[name] / seconds[name] for name in ways}
    for other in ("fs.cat", "one by one"):
        times = f"×{rates['lobar'] / rates[other]:.1f}"
        title = f"objects/s of {OBJECT_BYTES // 1000} KB from S3, {what}, beside {other}"
        yield Row(title, f"{rates[other]:.0f}", f"{rates['lobar']:.0f}", times, wanted.get(other, ""))


@contextmanager
def latency(endpoint: str) -> Iterator[str]:
    """An endpoint that hands on to another, each request LATENCY_MS later."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = endpoint.removeprefix("http://")
    relay = subprocess.Popen([sys.executable, "-m", "bench.latency", str(port), target, str(LATENCY_MS)])
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        relay.terminate()
        relay.wait()


def peak_megabytes(endpoint: str, times: int) -> int:
    """Peak memory of a process that reads the set so many times over, in one stream."""
    environment = {**os.environ, "AWS_ENDPOINT_URL": endpoint}
    command = [sys.executable, "-m", "bench.storage", "--peak", str(times)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def read_all(times: int) -> int:
    items = objects.list_objects(ROOT) * times
    assert sum(len(body) for _, body in objects.read_many(items)) == len(items) * OBJECT_BYTES
    return peak.megabytes()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(read_all(int(sys.argv[2])))
        console.exit_process(0)
