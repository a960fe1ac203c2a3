"""An HTTP proxy in front of a store, which goes wrong when told to.

Requests are signed, so that nothing that a signature covers is altered on the way: method, path and query as
they were written, headers with Host, body.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

DELAY_SECONDS = 0.1
HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}
GARBAGE = b"no HTTP at all\r\n\r\n"
ABORT_ON_CLOSE = struct.pack("ii", 1, 0)


class Kind(StrEnum):
    """What can happen to a request. The last three happen to its answer: the store has carried it out."""

    delay = "delay"
    drop = "drop"
    reset = "reset"
    garbage = "garbage"
    stall = "stall"
    slow_down = "503"
    too_many = "429"
    internal = "500"
    truncate = "truncate"
    stall_in_body = "stall-in-body"
    lost_reply = "lost-reply"


CODES = {Kind.slow_down: "SlowDown", Kind.too_many: "TooManyRequests", Kind.internal: "InternalError"}
OF_BODIES = {Kind.truncate, Kind.stall_in_body}


@dataclass
class Fault:
    """Which requests a fault happens to: of those with this method and with `path` in their path, from the
    `start`-th on every `every`-th one, `times` times at most. `seen` and `hit` count them.
    """

    kind: Kind
    every: int = 1
    start: int = 1
    times: int | None = None
    method: str = ""
    path: str = ""
    seen: int = field(default=0, init=False)
    hit: int = field(default=0, init=False)

    def takes(self, request: web.Request) -> bool:
        """Count a request, and say whether the fault happens to it."""
        bodiless = self.kind in OF_BODIES and request.method != "GET"
        if bodiless or self.method not in ("", request.method) or self.path not in request.raw_path:
            return False
        self.seen += 1
        beyond = self.seen - self.start
        if beyond < 0 or beyond % self.every or self.hit == self.times:
            return False
        self.hit += 1
        return True


class Proxy:
    """A proxy on a free port of 127.0.0.1, in a thread of its own, as long as the `with` block.

    `requests` are the requests so far, as "METHOD path?query"; `fault` may be set at any time.
    """

    def __init__(self, endpoint: str) -> None:
        self.store = endpoint.rstrip("/")
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self.endpoint = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait_for(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait_for(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self) -> None:
        # nothing is waited out and nothing is unpacked here: that is the client's to do
        self._client = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            timeout=aiohttp.ClientTimeout(),
        )
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # a stalled request ends with its client, or with the proxy
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.raw_path}")
        fault = self.fault
        kind = fault.kind if fault and fault.takes(request) else None
        try:
            return await self._answer(request, kind)
        except aiohttp.ClientError:
            # what a client without a proxy would see of a store that is gone
            return _reset(request)

    async def _answer(self, request: web.Request, kind: Kind | None) -> web.StreamResponse:
        if kind in CODES:
            await request.read()
            return _rejection(kind)
        match kind:
            case Kind.drop:
                return _close(request)
            case Kind.reset:
                return _reset(request)
            case Kind.garbage:
                if request.transport:
                    request.transport.write(GARBAGE)
                return _close(request)
            case Kind.stall:
                await asyncio.Event().wait()
            case Kind.delay:
                await asyncio.sleep(DELAY_SECONDS)
        reply, body = await self._forward(request)
        if kind is Kind.lost_reply:
            return _close(request)
        headers = _passed_on(reply.headers)
        if kind not in OF_BODIES:
            return web.Response(status=reply.status, reason=reply.reason, headers=headers, body=body or None)
        response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=headers)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if kind is Kind.stall_in_body:
            await asyncio.Event().wait()
        return _close(request)

    async def _forward(self, request: web.Request) -> tuple[aiohttp.ClientResponse, bytes]:
        url = URL(self.store + request.raw_path, encoded=True)
        given = await request.read()
        headers = _passed_on(request.headers)
        async with self._client.request(
            request.method, url, headers=headers, data=given or None, allow_redirects=False
        ) as reply:
            return reply, await reply.read()


def _passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)


def _close(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.close()
    return web.Response()


def _reset(request: web.Request) -> web.Response:
    if request.transport:
        connection: socket.socket = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT_ON_CLOSE)
        request.transport.abort()
    return web.Response()


def _rejection(kind: Kind) -> web.Response:
    """An error as S3 words it."""
    body = f"<Error><Code>{CODES[kind]}</Code><Message>the proxy was told to</Message></Error>"
    return web.Response(status=int(kind), text=body, content_type="application/xml")
