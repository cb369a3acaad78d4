"""The messages of a program to a proxy before its bytes are passed on. No input and output."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from halftunnel_vpn.protocol.host_encoding import Host
from halftunnel_vpn.proxy.refusals import Refusal

Users = Mapping[str, str]
"""Passwords by user name; empty if the proxy needs none."""


class Command(Enum):
    """What a program requests."""

    CONNECT = 1
    """A byte stream to the destination."""
    UDP_ASSOCIATE = 2
    """A socket for datagrams (RFC 1928 section 7)."""
    FORWARD = 3
    """HTTP requests, each with a destination of its own."""


class ProxyRequest(NamedTuple):
    """A complete request; ``host`` and ``port`` are only set for CONNECT."""

    command: Command
    host: Host = b""
    port: int = 0


class Negotiation(Protocol):
    """One connection until its request is complete. :meth:`receive` never raises."""

    @property
    def request(self) -> ProxyRequest | None:
        """The request, once it is complete."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the connection is to be closed once :meth:`outgoing` is written."""
        ...

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the program."""
        ...

    def outgoing(self) -> bytes:
        """Return the bytes to write now, once."""
        ...

    def rest(self) -> bytes:
        """Return the bytes that came after the request: they are for the destination."""
        ...

    def granted(self, address: bytes = b"", port: int = 0) -> bytes:
        """Return the positive answer, with the address of our socket if the protocol has a field for it."""
        ...

    def refused(self, refusal: Refusal) -> bytes:
        """Return the answer that it is not."""
        ...


class FixedDestination:
    """The negotiation of a forwarded port, which needs none."""

    is_over = False

    def __init__(self, host: Host, port: int) -> None:
        self.request: ProxyRequest | None = ProxyRequest(Command.CONNECT, host, port)

    def receive(self, data: bytes) -> None:
        """Do nothing: no data is read before the destination has connected."""

    def outgoing(self) -> bytes:
        """Nothing is said."""
        return b""

    def rest(self) -> bytes:
        """Nothing was read."""
        return b""

    def granted(self, address: bytes = b"", port: int = 0) -> bytes:
        """Nothing is said."""
        return b""

    def refused(self, refusal: Refusal) -> bytes:
        """The connection is closed."""
        return b""


def is_user(users: Users, name: str, password: str) -> bool:
    """Return whether ``name`` has this password. The time that it takes reveals nothing."""
    expected = users.get(name)
    is_right = hmac.compare_digest((expected or "").encode(), password.encode("utf-8", "replace"))
    return is_right and expected is not None
