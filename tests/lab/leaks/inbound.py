"""Connections from outside: who calls, and what answers on the client.

    python -m lab.leaks.inbound serve
    python -m lab.leaks.inbound call SECONDS_BETWEEN_ROUNDS

A host far away (:data:`OUTSIDE`, behind the exit's links) opens TCP connections, keeps one of each IP version
open, and sends datagrams and pings. Both run until SIGTERM; the caller then prints :class:`Calls` as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import signal
import socket
import sys
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from typing import Any, Final

from lab.leaks.traffic import echo_message
from lab.topology import CLIENT_A, CLIENT_A6, CLIENT_B, CLIENT_B6, OUTSIDE, OUTSIDE6

NEAR: Final = (CLIENT_A, CLIENT_A6, CLIENT_B, CLIENT_B6)
"""The client's addresses that the outside knows."""

TCP_PORT: Final = 2222
UDP_PORT: Final = 5000
MESSAGE: Final = b"from outside"

CALL_TIMEOUT: Final = 2.0
"""Seconds for a connection and its answer."""

SESSION_PAUSE: Final = 0.5
"""Seconds between two messages of a session that stays open."""

SESSION_PATIENCE: Final = 60.0
"""Seconds without an answer after which a session counts as lost."""


@dataclass
class Calls:
    """How many TCP connections were tried and answered, and what became of those that stay open."""

    tried: int = 0
    answered: int = 0
    messages: int = 0
    lost: int = 0


async def serve() -> None:
    """Send back what comes, over TCP and UDP, on every address that the outside knows."""
    loop = asyncio.get_running_loop()
    for address in NEAR:
        await asyncio.start_server(_echo, address, TCP_PORT)
        await loop.create_datagram_endpoint(_Echo, local_addr=(address, UDP_PORT))
    print("serving", flush=True)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError), contextlib.closing(writer):
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._transport.sendto(data, addr)


async def call(pause: float, calls: Calls) -> list[asyncio.Task[None]]:
    """Call each address in every way, over and over."""
    work: list[Coroutine[Any, Any, None]] = [_keep_session(CLIENT_A, calls), _keep_session(CLIENT_A6, calls)]
    for address in NEAR:
        work += [_connect_again(address, pause, calls), _send_again(address, pause)]
    print("calling", flush=True)
    return [asyncio.ensure_future(item) for item in work]


def _far(near: str) -> str:
    return OUTSIDE6 if ":" in near else OUTSIDE


async def _connect_again(address: str, pause: float, calls: Calls) -> None:
    while True:
        calls.tried += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await asyncio.wait_for(_call_once(address), CALL_TIMEOUT)
            calls.answered += 1
        await asyncio.sleep(pause)


async def _call_once(address: str) -> None:
    reader, writer = await asyncio.open_connection(address, TCP_PORT, local_addr=(_far(address), 0))
    with contextlib.closing(writer):
        writer.write(MESSAGE)
        await reader.readexactly(len(MESSAGE))


async def _keep_session(address: str, calls: Calls) -> None:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            opening = asyncio.open_connection(address, TCP_PORT, local_addr=(_far(address), 0))
            reader, writer = await asyncio.wait_for(opening, SESSION_PATIENCE)
            with contextlib.closing(writer):
                try:
                    while True:
                        writer.write(MESSAGE)
                        await asyncio.wait_for(reader.readexactly(len(MESSAGE)), SESSION_PATIENCE)
                        calls.messages += 1
                        await asyncio.sleep(SESSION_PAUSE)
                except (OSError, asyncio.IncompleteReadError):
                    calls.lost += 1
        await asyncio.sleep(SESSION_PAUSE)


async def _send_again(address: str, pause: float) -> None:
    """Datagrams, each from a port of its own, and pings; the capture sees what answers."""
    six = ":" in address
    family = socket.AF_INET6 if six else socket.AF_INET
    far = _far(address)
    protocol = socket.getprotobyname("ipv6-icmp" if six else "icmp")
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol) as pinging:
        pinging.bind((far, 0))
        for number in itertools.count():
            with contextlib.suppress(OSError):
                with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
                    asking.bind((far, 0))
                    asking.sendto(MESSAGE, (address, UDP_PORT))
                    pinging.sendto(echo_message(six, number, MESSAGE), (address, 0))
                    await asyncio.sleep(pause)


def main(argv: list[str]) -> None:
    """Serve, or call, until SIGTERM."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the lab
    calls = Calls()

    async def run() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        tasks: list[asyncio.Task[None]] = []
        if argv[0] == "call":
            tasks = await call(float(argv[1]), calls)
        else:
            await serve()
        await ended.wait()
        for task in tasks:
            task.cancel()

    asyncio.run(run())
    print(json.dumps(asdict(calls)))


if __name__ == "__main__":
    main(sys.argv[1:])
