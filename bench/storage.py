"""Reading many small objects from S3: lobar beside fsspec as it comes and beside one read after the other.

python -m bench.storage: a real S3 server on loopback, plainly and behind 30 ms of latency.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from bench import peak
from dev import servers
from lobar import console, drivers, storage
from lobar.parallel import in_order

OBJECTS = 1500
OBJECT_BYTES = 130_000
ROUNDS = 5
ONE_BY_ONE = 100  # enough for a rate, and does not take a minute
LATENCY_MS = 30
ROOT = "s3://lobar/bench"


def main() -> None:
    """Print objects a second for each way of reading, and the memory that ten times as many take."""
    with tempfile.TemporaryDirectory() as folder, servers.serve("s3", Path(folder)) as server:
        servers.make_bucket(server)
        os.environ.update(server.environment)
        body = os.urandom(OBJECT_BYTES)
        names = (storage.join(ROOT, f"{i:05d}") for i in range(OBJECTS))
        list(in_order(lambda url: drivers.start(drivers.place_of(url).ask("pipe_file", body)), names, 32))
        print(f"{OBJECTS} objects of {OBJECT_BYTES // 1000} KB, medians of {ROUNDS} rounds, objects/s")
        print(f"{'':16}{'lobar':>8}{'fs.cat':>8}{'one by one':>12}   times fs.cat   times one by one")
        compare("loopback", server.endpoint)
        with latency(server.endpoint) as slower:
            compare(f"{LATENCY_MS} ms latency", slower)
        for times in (1, 10):
            megabytes = peak_megabytes(server.endpoint, times)
            print(f"peak memory of a process that reads {times * OBJECTS:6} of them: {megabytes} MB")


def compare(what: str, endpoint: str) -> None:
    """One line of the table: each way in turn, so that a busy machine is busy for all of them."""
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    drivers._filesystem.cache_clear()
    items = storage.list_objects(ROOT)
    urls = [item.url for item in items]
    plain = fsspec.filesystem("s3", skip_instance_cache=True)
    single = fsspec.filesystem("s3", skip_instance_cache=True, max_concurrency=1)
    ways: list[Callable[[], int]] = [
        lambda: sum(len(body) == OBJECT_BYTES for _, body in storage.read_many(items)),
        lambda: len(plain.cat(urls)),
        lambda: len([single.cat_file(url) for url in urls[:ONE_BY_ONE]]),
    ]
    rates = list(zip(*([rate(way) for way in ways] for _ in range(ROUNDS)), strict=True))
    lobar, cat, one = (statistics.median(of_way) for of_way in rates)
    print(f"{what:16}{lobar:8.0f}{cat:8.0f}{one:12.0f}{lobar / cat:15.1f}{lobar / one:19.1f}", flush=True)


def rate(way: Callable[[], int]) -> float:
    """Objects a second that a way of reading comes to."""
    started = time.perf_counter()
    return way() / (time.perf_counter() - started)


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
    items = storage.list_objects(ROOT) * times
    assert sum(len(body) for _, body in storage.read_many(items)) == len(items) * OBJECT_BYTES
    return peak.megabytes()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(read_all(int(sys.argv[2])))
        console.leave(0)
    main()
    console.leave(0)
