"""SOCKS5 (RFC 1928, RFC 1929), SOCKS4 and SOCKS4a at the server's end, without input and output."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.host_encoding import Host
from halftunnel_vpn.proxy.destination import host_of
from halftunnel_vpn.proxy.negotiation import Command, ProxyRequest, Users, is_user
from halftunnel_vpn.proxy.refusals import SOCKS4_GRANTED, SOCKS4_REFUSED, SOCKS5_SUCCEEDED, Refusal

MAX_STEP: Final = 1024
"""Bytes of a part of the negotiation that is not complete; SOCKS5 needs 515, a SOCKS4a user may be long."""

NO_AUTHENTICATION: Final = 0
USER_AND_PASSWORD: Final = 2
NO_METHOD: Final = 0xFF

CONNECT: Final = 1
UDP_ASSOCIATE: Final = 3

IPV4: Final = 1
NAME: Final = 3
IPV6: Final = 4

_LENGTHS: Final = {IPV4: 4, IPV6: 16}
_SOCKS4 = struct.Struct(">BBH4s")

NOT_SOCKS: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks SOCKS. The HTTP proxy is at the address of --http.\n"
)
"""The answer to a program that uses the SOCKS port as an HTTP proxy."""


class SocksNegotiation:
    """Implements Negotiation. Users, where there are any, must authenticate by SOCKS5."""

    def __init__(self, users: Users, counters: Counters) -> None:
        self.request: ProxyRequest | None = None
        self.is_over = False
        self._users = users
        self._counters = counters
        self._buffer = bytearray()
        self._outgoing = bytearray()
        self._is_version_4 = False
        # Takes one part from the buffer; returns False when that is not complete.
        self._step: Callable[[], bool] = self._take_version

    # --- Negotiation -----------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the program."""
        self._buffer += data
        while self.request is None and not self.is_over:
            if not self._step():
                if len(self._buffer) > MAX_STEP:
                    self._fail(Refusal.MALFORMED)
                return

    def outgoing(self) -> bytes:
        """Return the bytes to write now, once."""
        written = bytes(self._outgoing)
        self._outgoing.clear()
        return written

    def rest(self) -> bytes:
        """Return the bytes that came after the request."""
        return bytes(self._buffer)

    def granted(self, address: bytes = b"", port: int = 0) -> bytes:
        """Return the reply that the request is served; without ``address`` it names 0.0.0.0."""
        if self._is_version_4:
            return _SOCKS4.pack(0, SOCKS4_GRANTED, 0, bytes(4))
        return _reply(SOCKS5_SUCCEEDED, address or bytes(4), port)

    def refused(self, refusal: Refusal) -> bytes:
        """Return the reply that it is not."""
        if self._is_version_4:
            return _SOCKS4.pack(0, SOCKS4_REFUSED, 0, bytes(4))
        return _reply(refusal.socks5, bytes(4), 0)

    # --- parts -----------------------------------------------------------------------------------

    def _take_version(self) -> bool:
        if not self._buffer:
            return False
        version = self._buffer[0]
        if version == 5:
            self._step = self._take_methods
        elif version == 4:
            self._is_version_4 = True
            self._step = self._take_request_4
        else:
            self._counters.drop("socks-bad-version")
            if 65 <= version <= 90:  # an upper-case letter: the method of an HTTP request
                self._outgoing += NOT_SOCKS
            self.is_over = True
        return True

    def _take_methods(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            return False
        methods = buffer[2 : 2 + buffer[1]]
        del buffer[: 2 + buffer[1]]
        wanted = USER_AND_PASSWORD if self._users else NO_AUTHENTICATION
        if wanted not in methods:
            self._counters.drop("socks-no-method")
            self._outgoing += bytes((5, NO_METHOD))
            self.is_over = True
            return True
        self._outgoing += bytes((5, wanted))
        self._step = self._take_password if self._users else self._take_request_5
        return True

    def _take_password(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2 or len(buffer) < 3 + buffer[1]:
            return False
        name_end = 2 + buffer[1]
        end = name_end + 1 + buffer[name_end]
        if len(buffer) < end:
            return False
        name = buffer[2:name_end].decode("utf-8", "replace")
        password = buffer[name_end + 1 : end].decode("utf-8", "replace")
        is_right = buffer[0] == 1 and is_user(self._users, name, password)
        del buffer[:end]
        self._outgoing += bytes((1, 0 if is_right else 1))
        if is_right:
            self._step = self._take_request_5
        else:
            self._counters.drop("proxy-wrong-password")
            self.is_over = True
        return True

    def _take_request_5(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 5:
            return False
        version, command, _, kind = buffer[:4]
        if version != 5:
            return self._fail(Refusal.MALFORMED)
        start = 5 if kind == NAME else 4
        length = buffer[4] if kind == NAME else _LENGTHS.get(kind)
        if length is None:
            return self._fail(Refusal.ADDRESS_NOT_SUPPORTED)
        end = start + length + 2
        if len(buffer) < end:
            return False
        raw, port = bytes(buffer[start : end - 2]), int.from_bytes(buffer[end - 2 : end], "big")
        del buffer[:end]
        if command == UDP_ASSOCIATE:
            self.request = ProxyRequest(Command.UDP_ASSOCIATE)
            return True
        if command != CONNECT:
            return self._fail(Refusal.COMMAND_NOT_SUPPORTED)
        return self._connect(raw if kind != NAME else None, raw, port)

    def _take_request_4(self) -> bool:
        buffer = self._buffer
        if len(buffer) < _SOCKS4.size:
            return False
        _, command, port, address = _SOCKS4.unpack_from(buffer)
        end = buffer.find(0, _SOCKS4.size)
        if end < 0:
            return False
        name = b""
        is_4a = address[:3] == bytes(3) and address[3] != 0
        if is_4a:
            start, end = end + 1, buffer.find(0, end + 1)
            if end < 0:
                return False
            name = bytes(buffer[start:end])
        del buffer[: end + 1]
        if self._users:  # SOCKS4 has no passwords
            self._counters.drop("proxy-wrong-password")
            return self._fail(Refusal.DENIED)
        if command != CONNECT:
            return self._fail(Refusal.COMMAND_NOT_SUPPORTED)
        return self._connect(None if is_4a else address, name, port)

    def _connect(self, address: bytes | None, name: bytes, port: int) -> bool:
        host: Host
        if port == 0:
            return self._fail(Refusal.MALFORMED)
        try:
            host = address if address is not None else host_of(name.decode("utf-8"))
        except ValueError:  # UnicodeError is one
            return self._fail(Refusal.BAD_NAME)
        self.request = ProxyRequest(Command.CONNECT, host, port)
        return True

    def _fail(self, refusal: Refusal) -> bool:
        self._counters.drop(refusal.label)
        self._outgoing += self.refused(refusal)
        self.is_over = True
        return True


def _reply(code: int, address: bytes, port: int) -> bytes:
    kind = IPV4 if len(address) == 4 else IPV6
    return bytes((5, code, 0, kind)) + address + port.to_bytes(2, "big")


# --- datagrams -----------------------------------------------------------------------------------


def read_datagram(data: memoryview) -> tuple[Host, int, memoryview] | None:
    """Return host, port and payload of a datagram of a program (RFC 1928 section 7); None: drop it.

    Fragments are not joined, as the RFC allows.
    """
    if len(data) < 10 or data[2] != 0:
        return None
    kind = data[3]
    start = 5 if kind == NAME else 4
    length = data[4] if kind == NAME else _LENGTHS.get(kind)
    if length is None:
        return None
    end = start + length + 2
    if len(data) < end:
        return None
    raw, port = bytes(data[start : end - 2]), int.from_bytes(data[end - 2 : end], "big")
    if port == 0:
        return None
    try:
        host = host_of(raw.decode("utf-8")) if kind == NAME else raw
    except ValueError:
        return None
    return host, port, data[end:]


def datagram_header(host: Host, port: int) -> bytes:
    """Return what goes before the payload of a datagram from ``host``."""
    if isinstance(host, str):
        name = host.encode("ascii")
        return bytes((0, 0, 0, NAME, len(name))) + name + port.to_bytes(2, "big")
    kind = IPV4 if len(host) == 4 else IPV6
    return bytes((0, 0, 0, kind)) + host + port.to_bytes(2, "big")
