"""An HTTP proxy in front of a store that injects faults.

Requests are signed, so everything that a signature covers is forwarded unchanged: method, path, query,
headers including Host, and body.
"""

import asyncio
import socket
import ssl
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
GARBAGE = b"this is not HTTP\r\n\r\n"
ABORT_ON_CLOSE = struct.pack("ii", 1, 0)


class Kind(StrEnum):
    """The faults. The last three affect the reply, after the store has carried out the request."""

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
BODY_FAULTS = {Kind.truncate, Kind.stall_in_body}


@dataclass
class Fault:
    """A fault and the requests it affects: of those with this method and with `path` in their path, every
    `every`-th one from the `start`-th on, at most `times`. `seen` counts the candidates, `hit` the faults.

    `status`, `code` and `text` change an error reply.
    """

    kind: Kind
    every: int = 1
    start: int = 1
    times: int | None = None
    method: str = ""
    path: str = ""
    status: int = 0
    code: str = ""
    text: str = "injected by the proxy"
    seen: int = field(default=0, init=False)
    hit: int = field(default=0, init=False)

    def takes(self, request: web.Request) -> bool:
        """Count a request, and return whether the fault affects it."""
        no_body = self.kind in BODY_FAULTS and request.method != "GET"
        if no_body or self.method not in ("", request.method) or self.path not in request.raw_path:
            return False
        self.seen += 1
        index = self.seen - self.start
        if index < 0 or index % self.every or self.hit == self.times:
            return False
        self.hit += 1
        return True


class Proxy:
    """A proxy on a free port of 127.0.0.1 that runs in its own thread for the length of the `with` block.

    `requests` lists the requests so far as "METHOD path?query"; `fault` can be set at any time. With `tls`,
    clients connect by https.
    """

    def __init__(self, endpoint: str, tls: ssl.SSLContext | None = None) -> None:
        self.store = endpoint.rstrip("/")
        self.tls = tls
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
        # no timeouts and no decompression here, they are up to the client
        self._client = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            timeout=aiohttp.ClientTimeout(),
        )
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # a stalled request ends when its client disconnects or the proxy stops
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.endpoint = f"{'https' if self.tls else 'http'}://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.raw_path}")
        fault = self.fault
        fault = fault if fault and fault.takes(request) else None
        try:
            if fault and fault.kind in CODES:
                await request.read()
                return _rejection(fault, request)
            return await self._answer(request, fault.kind if fault else None)
        except aiohttp.ClientError:
            # as without a proxy, if the store has stopped
            return _reset(request)

    async def _answer(self, request: web.Request, kind: Kind | None) -> web.StreamResponse:
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
        headers = _forwarded_headers(reply.headers)
        if kind not in BODY_FAULTS:
            return web.Response(status=reply.status, reason=reply.reason, headers=headers, body=body or None)
        response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=headers)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if kind is Kind.stall_in_body:
            await asyncio.Event().wait()
        return _close(request)

    async def _forward(self, request: web.Request) -> tuple[aiohttp.ClientResponse, bytes]:
        url = URL(self.store + request.raw_path, encoded=True)
        body = await request.read()
        headers = _forwarded_headers(request.headers)
        async with self._client.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        ) as reply:
            return reply, await reply.read()


def _forwarded_headers(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
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


def _rejection(fault: Fault, request: web.Request) -> web.Response:
    """An error reply in the format of the request's store: Google's JSON, or the XML of Azure and S3."""
    status, code = fault.status or int(fault.kind), fault.code or CODES.get(fault.kind, "")
    if "/storage/v1/" in request.path:
        reasons = [{"reason": code, "message": fault.text}]
        error = {"code": status, "message": fault.text, "errors": reasons}
        return web.json_response({"error": error}, status=status)
    body = f"<Error><Code>{code}</Code><Message>{fault.text}</Message></Error>"
    headers = {"x-ms-error-code": code} if "x-ms-version" in request.headers else {}
    return web.Response(status=status, text=body, content_type="application/xml", headers=headers)
