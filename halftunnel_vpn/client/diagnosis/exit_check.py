"""Checks that ask the exit itself, through a running tunnel: its addresses, and how fast the tunnel is."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

from halftunnel_vpn.client.diagnosis.finding import Finding, failed, ok, skipped, warning
from halftunnel_vpn.protocol.service_address import (
    ADDRESSES_PORT,
    DOWNLOAD_PORT,
    SERVICE_ADDRESS,
    UPLOAD_PORT,
)

PATIENCE: Final = 5.0
"""Seconds within which the exit must accept a connection, and answer."""

MEASURED: Final = 3.0
"""Seconds of a measurement, for each direction."""

MAX_ANSWER: Final = 4096
"""Bytes of an answer."""

_PIECE: Final = bytes(64 * 1024)

_VERSIONS: Final = (("ipv4", "IPv4"), ("ipv6", "IPv6"))


async def check_addresses() -> list[Finding]:
    """Return the addresses with which destinations see the exit, as the exit says."""
    try:
        async with _connection(ADDRESSES_PORT) as (reader, _), asyncio.timeout(PATIENCE):
            answer = json.loads(await _answer(reader))
        return address_findings({name: answer.get(key) for key, name in _VERSIONS})
    except (OSError, ValueError, AttributeError, RecursionError):
        return [
            skipped(
                "exit address",
                "not known: the exit is of an earlier version, or the profile sends only some networks "
                "through the tunnel",
            )
        ]


def address_findings(addresses: Mapping[str, object]) -> list[Finding]:
    """Return a line for each version of IP; ``addresses`` has the exit's by name of the version, or None."""
    if not any(addresses.values()):
        return [
            warning(
                "exit",
                "it has no route to the Internet, by IPv4 or IPv6: run `htvpn server status` there",
            )
        ]
    return [_address(name, text) for name, text in addresses.items()]


def _address(name: str, text: object) -> Finding:
    subject = f"exit {name}"
    if text is None:
        return ok(subject, f"the exit reaches no {name} destination")
    address = ipaddress.ip_address(str(text))
    if address.is_global:
        return ok(subject, f"destinations see {address}")
    return ok(subject, f"the exit has {address} and is behind NAT, so destinations see another address")


async def check_speed() -> list[Finding]:
    """Measure both directions between this host and the exit, one after the other."""
    found = []
    for name, measure in (("download", _download), ("upload", _upload)):
        try:
            rate = await measure()
        except (OSError, ValueError) as error:
            found.append(
                failed(f"speed, {name}", f"not measured: the exit ended it ({error or 'no answer'})")
            )
        else:
            found.append(ok(f"speed, {name}", f"{rate * 8 / 1e6:.1f} Mbit/s between this host and the exit"))
    return found


async def _download() -> float:
    """Return bytes a second from the exit."""
    count = 0
    async with _connection(DOWNLOAD_PORT) as (reader, _):
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MEASURED):
                while data := await reader.read(len(_PIECE)):
                    count += len(data)
        return count / (time.monotonic() - began)


async def _upload() -> float:
    """Return bytes a second to the exit, by what has arrived there."""
    sent = 0
    async with _connection(UPLOAD_PORT) as (reader, writer):
        began = time.monotonic()
        async with asyncio.timeout(MEASURED + PATIENCE):
            while time.monotonic() - began < MEASURED:
                writer.write(_PIECE)
                sent += len(_PIECE)
                await writer.drain()
            writer.write_eof()
            arrived = int(await _answer(reader))
            if not 0 <= arrived <= sent:
                raise ValueError("it counts another number of bytes than was sent")
            return arrived / (time.monotonic() - began)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Return everything up to the end. Raises ValueError if it is too long."""
    answer = await reader.read(MAX_ANSWER)
    while more := await reader.read(MAX_ANSWER):
        answer += more
        if len(answer) > MAX_ANSWER:
            raise ValueError("the answer is too long")
    return answer


@contextlib.asynccontextmanager
async def _connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the exit itself, through the tunnel. Raises OSError."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(SERVICE_ADDRESS, port)
    try:
        yield reader, writer
    finally:
        # Unsent data must not hold up the end.
        writer.transport.abort()
