"""Fixtures of the tests with faults of a store: a faulty proxy, and each job run once without a fault."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dev.servers import Server
from lobar.storage import filesystem, retry
from tests.support.proxy import Fault, Kind, Proxy
from tests.support.stores import use_server
from tests.support.undisturbed import Job, run_all, simple_training

ROOT = "s3://lobar/store-faults"
STALLS = {Kind.stall, Kind.stall_in_body}
InjectFault = Callable[..., Fault]


@pytest.fixture(scope="module")
def proxy(s3_server: Server) -> Iterator[Proxy]:
    """A proxy in front of the store, and an environment with its endpoint."""
    with (
        Proxy(s3_server.endpoint) as proxy,
        use_server({**s3_server.environment, "AWS_ENDPOINT_URL": proxy.endpoint}),
    ):
        yield proxy


async def no_sleep(seconds: float) -> None:
    """Replaces asyncio.sleep and returns at once."""


@pytest.fixture(scope="module")
def golden(proxy: Proxy) -> Iterator[dict[str, Job]]:
    """Each job, run without a fault; after that, the waits between attempts are short."""
    with simple_training(), pytest.MonkeyPatch.context() as patch:
        jobs = run_all(ROOT, proxy.requests)
        patch.setattr(retry, "FIRST_WAIT", 0.02)
        # s3fs sleeps before it raises an error
        patch.setattr("s3fs.core.asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": no_sleep}))
        yield jobs


@pytest.fixture(scope="module")
def short_timeout_driver(golden: dict[str, Job]) -> Any:
    """A driver with a short timeout, which is set when the driver is created."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "ATTEMPT_SECONDS", 0.4)
        filesystem._filesystem.cache_clear()
        driver = filesystem.locate(ROOT).fs
    filesystem._filesystem.cache_clear()
    return driver


@pytest.fixture
def folder(proxy: Proxy) -> Iterator[str]:
    """The URL of an empty folder in the store; the fault is removed at the end."""
    yield f"{ROOT}/{uuid.uuid4().hex}"
    proxy.fault = None


@pytest.fixture
def inject(proxy: Proxy, short_timeout_driver: Any, monkeypatch: pytest.MonkeyPatch) -> InjectFault:
    """Injects faults; if the store does not respond, the timeouts are short."""

    def inject_fault(kind: Kind, **which: Any) -> Fault:
        if kind in STALLS:
            monkeypatch.setattr(retry, "ATTEMPT_SECONDS", 0.25)
            monkeypatch.setattr(filesystem, "_filesystem", lambda scheme: short_timeout_driver)
        proxy.fault = Fault(kind, **which)
        return proxy.fault

    return inject_fault
