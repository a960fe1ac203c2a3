"""A TCP proxy on loopback that delays requests: python -m bench.latency PORT TARGET MILLISECONDS.

It uses little CPU, because a benchmark has only two cores.
"""

import asyncio
import sys


class Replies(asyncio.Protocol):
    """Sends the target's replies to the client without a delay."""

    def __init__(self, client: asyncio.Transport) -> None:
        self.client = client

    def data_received(self, data: bytes) -> None:
        self.client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.client.close()


class Requests(asyncio.Protocol):
    """Sends what a client sends to the target, `seconds` later."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        self.target = (host, port)
        self.seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        loop = asyncio.get_running_loop()
        self.connected = loop.create_task(loop.create_connection(lambda: Replies(transport), *self.target))

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.seconds, self.send, data)

    def send(self, data: bytes) -> None:
        self.connected.add_done_callback(lambda done: done.result()[0].write(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.connected.add_done_callback(lambda done: done.result()[0].close())


async def relay(port: int, target: str, milliseconds: float) -> None:
    """Serve on a port of 127.0.0.1 until the process ends; `target` is HOST:PORT."""
    host, target_port = target.rsplit(":", 1)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Requests(host, int(target_port), milliseconds / 1000), "127.0.0.1", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
