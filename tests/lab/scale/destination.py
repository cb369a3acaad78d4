"""A destination on loopback: it answers four bytes, a length, with as many bytes.

Run as a process of its own: ``python -m lab.scale.destination``. It prints its port.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import uvloop

LENGTH: Final = 4
"""Bytes of a request that say how long the answer is. What follows up to REQUEST is ignored."""

REQUEST: Final = 100
"""Bytes of a request."""

MAX_ANSWER: Final = 1 << 20

_BYTES: Final = memoryview(bytes(MAX_ANSWER))


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= REQUEST:
            length = min(int.from_bytes(self._received[:LENGTH], "big"), MAX_ANSWER)
            del self._received[:REQUEST]
            self._transport.write(_BYTES[:length])


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
