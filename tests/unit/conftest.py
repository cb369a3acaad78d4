"""Unit tests touch no network: what needs a socket belongs in tests/integration."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

NETWORK_EVENTS = frozenset({"socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg"})
FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6})

_guarded = False
_touched: list[str] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _guarded and event in NETWORK_EVENTS:
        sock = arguments[0]
        if isinstance(sock, socket.socket) and sock.family in FAMILIES:
            _touched.append(f"{event} {arguments[1]}")


sys.addaudithook(_audit)  # it stays for the life of the process, hence the switch


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Fail a test that binds, connects or sends on an IPv4 or IPv6 socket."""
    global _guarded
    _touched.clear()
    _guarded = True
    yield
    _guarded = False
    assert not _touched, "a unit test uses the network; move it to tests/integration"
