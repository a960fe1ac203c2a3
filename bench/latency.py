"""A relay on loopback that sends requests on some milliseconds later: python -m bench.latency PORT TARGET MS.

So small that it takes little of the two cores that a benchmark has.
"""

import asyncio
import sys


class Onward(asyncio.Protocol):
    """What the target answers goes back at once."""

    def __init__(self, back: asyncio.Transport) -> None:
        self.back = back

    def data_received(self, data: bytes) -> None:
        self.back.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.back.close()


class Delayed(asyncio.Protocol):
    """What a client sends goes to the target after `seconds`."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        self.target = (host, port)
        self.seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        loop = asyncio.get_running_loop()
        self.onward = loop.create_task(loop.create_connection(lambda: Onward(transport), *self.target))

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.seconds, self.send, data)

    def send(self, data: bytes) -> None:
        self.onward.add_done_callback(lambda done: done.result()[0].write(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.onward.add_done_callback(lambda done: done.result()[0].close())


async def relay(port: int, target: str, milliseconds: float) -> None:
    """Serve on a port of 127.0.0.1 until the process ends; `target` is HOST:PORT."""
    host, target_port = target.rsplit(":", 1)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Delayed(host, int(target_port), milliseconds / 1000), "127.0.0.1", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
