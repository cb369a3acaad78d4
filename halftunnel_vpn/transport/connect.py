"""From a name to a connected TCP socket: resolving, and trying several addresses at once (RFC 8305)."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain, zip_longest
from typing import Any

from halftunnel_vpn.config.shared import SYSTEM_CONGESTION
from halftunnel_vpn.errors import RoadError
from halftunnel_vpn.transport.happy_eyeballs import ATTEMPT_DELAY, MAX_ADDRESSES
from halftunnel_vpn.transport.kernel.send_buffer import prepare
from halftunnel_vpn.transport.name_lookup import look_up
from halftunnel_vpn.transport.sockets import tune

SocketAddress = tuple[Any, ...]
"""What ``socket.connect`` takes: an IP address, its port, and for IPv6 perhaps flow and scope."""

Resolver = Callable[[str, int], Awaitable[list[SocketAddress]]]
"""Addresses of a host and port, the best first. Raises OSError or RoadError when there are none."""

_ADVICE = {
    errno.ECONNREFUSED: ("connection-refused", "nothing listens there; check the address and the port"),
    errno.ETIMEDOUT: ("connect-timeout", "it does not answer; check the address and any firewall on the way"),
    errno.ECONNRESET: ("connection-reset", "the connection was cut; check any firewall on the way"),
    errno.EHOSTUNREACH: ("host-unreachable", "there is no way to that host; check the address"),
    errno.ENETUNREACH: ("network-unreachable", "this machine has no network to it; connect it first"),
}
"""Reason and advice by error; when attempts fail for several reasons, the first in this order is reported."""


async def resolve(host: str, port: int) -> list[SocketAddress]:
    """Ask the system's resolver."""
    return [(address, port) for address in await look_up(host)]


async def connect(
    host: str,
    port: int,
    *,
    resolver: Resolver,
    mark: int | None,
    congestion: str = SYSTEM_CONGESTION,
) -> socket.socket:
    """Connect to the first address of ``host`` that answers; the caller sets the deadline.

    Raises RoadError: name-not-resolved, mark-not-permitted, or a reason of the table above. Leaves no socket
    open but the one it returns, not even when cancelled.
    """
    try:
        addresses = _in_order(await resolver(host, port))
    except (OSError, UnicodeError) as error:
        raise _not_resolved(host) from error
    if not addresses:
        raise _not_resolved(host)
    attempts: list[asyncio.Task[socket.socket]] = []
    try:
        return await _first_to_answer(addresses, mark, congestion, attempts)
    except OSError as error:
        raise _unreachable(error, host, port) from error
    finally:
        await _clear_up(attempts)


def _in_order(addresses: Iterable[SocketAddress]) -> list[SocketAddress]:
    """Alternate the families, beginning with that of the first: a broken one costs one delay only."""
    unique = list(dict.fromkeys(addresses))
    first = [a for a in unique if _family(a) == _family(unique[0])]
    second = [a for a in unique if _family(a) != _family(unique[0])]
    turns = chain.from_iterable(zip_longest(first, second))
    return [address for address in turns if address is not None][:MAX_ADDRESSES]


def _family(address: SocketAddress) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


async def _first_to_answer(
    addresses: Iterable[SocketAddress],
    mark: int | None,
    congestion: str,
    attempts: list[asyncio.Task[socket.socket]],
) -> socket.socket:
    """``attempts`` is filled with all that was begun; the winner is taken out of it."""
    waiting = deque(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    while waiting or running:
        if waiting:
            attempt = asyncio.create_task(_attempt(waiting.popleft(), mark, congestion))
            attempts.append(attempt)
            running.add(attempt)
        done, running = await asyncio.wait(
            running, timeout=ATTEMPT_DELAY if waiting else None, return_when=asyncio.FIRST_COMPLETED
        )
        for attempt in done:
            error = attempt.exception()
            if error is None:
                attempts.remove(attempt)
                return attempt.result()
            if not isinstance(error, OSError):
                raise error
            errors.append(error)
    raise min(errors, key=_rank)


async def _attempt(address: SocketAddress, mark: int | None, congestion: str) -> socket.socket:
    sock = socket.socket(_family(address), socket.SOCK_STREAM)
    try:
        tune(sock)
        prepare(sock, congestion)
        if mark is not None:
            _set_mark(sock, mark)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _set_mark(sock: socket.socket, mark: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except PermissionError as error:
        raise RoadError(
            "marking the tunnel's own connections needs CAP_NET_ADMIN; run as root",
            reason="mark-not-permitted",
        ) from error


async def _clear_up(attempts: list[asyncio.Task[socket.socket]]) -> None:
    """Close what the losers have opened."""
    for attempt in attempts:
        attempt.cancel()
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(outcome, socket.socket):
            outcome.close()


def _rank(error: OSError) -> int:
    known = list(_ADVICE)
    return known.index(error.errno) if error.errno in _ADVICE else len(known)


def _not_resolved(host: str) -> RoadError:
    return RoadError(
        f"the name {host} has no address: check its spelling and this machine's DNS",
        reason="name-not-resolved",
    )


def _unreachable(error: OSError, host: str, port: int) -> RoadError:
    reason, advice = _ADVICE.get(error.errno or 0, ("connect-failed", error.strerror or str(error)))
    return RoadError(f"cannot connect to {host} port {port}: {advice}", reason=reason)
