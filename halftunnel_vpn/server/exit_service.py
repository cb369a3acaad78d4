"""The exit answers its own clients: its addresses, and bytes for a measurement of speed.

Each connection is one end of a socket pair. At the other end is the relay of any stream, so the limits, the
rate and the account of the client hold as they do for a destination.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.service_address import (
    ADDRESSES_PORT,
    DOWNLOAD_PORT,
    MAX_MEASUREMENT,
    MAX_SECONDS,
    UPLOAD_PORT,
)

PUBLIC_ADDRESSES: Final = {"ipv4": "198.41.0.4", "ipv6": "2001:503:ba3e::2:30"}
"""Where the kernel is asked for a route to: a.root-servers.net. Nothing is sent there."""

PORTS: Final = (ADDRESSES_PORT, DOWNLOAD_PORT, UPLOAD_PORT)

_PIECE: Final = bytes(65000)


def egress_address(destination: str) -> str | None:
    """Return the local address from which the kernel would send to ``destination``; None without a route."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((destination, 53))  # of a datagram socket: sends nothing
            name: str = sock.getsockname()[0]
            return name
    except OSError:
        return None


def egress_addresses() -> dict[str, str | None]:
    """Return the addresses with which this machine reaches the Internet, before any NAT behind it."""
    return {version: egress_address(destination) for version, destination in PUBLIC_ADDRESSES.items()}


async def serve(
    sock: socket.socket,
    port: int,
    counters: Counters,
    addresses: Callable[[], dict[str, str | None]] = egress_addresses,
) -> None:
    """Answer on ``sock``, and close it."""
    try:
        async with asyncio.timeout(MAX_SECONDS):
            if port == ADDRESSES_PORT:
                await asyncio.get_running_loop().sock_sendall(sock, json.dumps(addresses()).encode())
            elif port == DOWNLOAD_PORT:
                await _send(sock)
            else:
                await _count(sock)
    except TimeoutError:
        counters.drop("exit-service-timeout")
    except OSError:
        counters.count("exit-services-ended-by-client")
    finally:
        sock.close()


async def _send(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(MAX_MEASUREMENT // len(_PIECE)):
        await loop.sock_sendall(sock, _PIECE)


async def _count(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    buffer = bytearray(len(_PIECE))
    count = 0
    while received := await loop.sock_recv_into(sock, buffer):
        count += received
        if count > MAX_MEASUREMENT:
            return
    await loop.sock_sendall(sock, b"%d" % count)
