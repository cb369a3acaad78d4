"""Requests to the kernel over rtnetlink, and its answers, as bytes. See netlink(7) and rtnetlink(7)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

MAX_BATCH: Final = 64
"""Changes in one datagram to the kernel. The acknowledgements of more might not fit the socket's buffer."""

MAX_LISTINGS: Final = 5
"""How often something is listed again that changed while it was listed. The last listing counts."""

ANSWER_TIMEOUT: Final = 10.0
"""Seconds to wait for an answer. The kernel answers before the request returns."""

NEW_LINK: Final = 16
GET_LINK: Final = 18
NEW_ADDRESS: Final = 20
DELETE_ADDRESS: Final = 21
GET_ADDRESS: Final = 22
NEW_ROUTE: Final = 24
DELETE_ROUTE: Final = 25
GET_ROUTE: Final = 26
NEW_RULE: Final = 32
DELETE_RULE: Final = 33
GET_RULE: Final = 34

HEADER: Final = struct.Struct("=IHHII")
"""``struct nlmsghdr``: length, type, flags, serial number, port. Each message begins with it."""

_READ_SIZE: Final = 65536
_REQUEST: Final = 0x1
_ACKNOWLEDGE: Final = 0x4
_INTERRUPTED: Final = 0x10
_DUMP: Final = 0x300
_CREATE: Final = 0x600  # NLM_F_CREATE | NLM_F_EXCL
_CREATES: Final = (NEW_ADDRESS, NEW_ROUTE, NEW_RULE)
_ERROR: Final = 2
_DONE: Final = 3
_SOL_NETLINK: Final = 270
_STRICT_CHECK: Final = 12  # NETLINK_GET_STRICT_CHK: the kernel filters what it lists (Linux 4.20)
_ATTRIBUTE_KIND: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_ATTRIBUTE: Final = struct.Struct("=HH")
_CODE: Final = struct.Struct("=i")

_NOTHING_TO_LIST: Final = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""Errors of a list of what the kernel lacks: a table without routes, an IP version that is turned off."""

_GONE: Final = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors about an object that is already gone."""


class NetlinkRefusal(Exception):
    """The kernel refused a request. ``code`` is an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.code = code


class RouteSocket:
    """A netlink socket in the network namespace of this thread. Raises OSError, and NetlinkRefusal."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._serial = 0
        try:
            self._socket.settimeout(ANSWER_TIMEOUT)
            self._socket.bind((0, 0))
            with contextlib.suppress(OSError):  # an older kernel lists everything
                self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> RouteSocket:
        return self

    def __exit__(self, *details: object) -> None:
        self._socket.close()

    def change(self, kind: int, bodies: Sequence[bytes], *, harmless: tuple[int, ...] = ()) -> None:
        """Make, change or remove objects, in this order. What is made must not exist yet.

        Raises NetlinkRefusal for the first one that is refused, unless its errno is ``harmless``.
        """
        flags = _ACKNOWLEDGE | (_CREATE if kind in _CREATES else 0)
        refused = 0
        for at in range(0, len(bodies), MAX_BATCH):
            batch = bodies[at : at + MAX_BATCH]
            self._send(kind, flags, batch)
            left = len(batch)
            while left > 0:
                for found, _, message in self._receive():
                    if found == _ERROR:
                        left -= 1
                        code = _code_of(message)
                        refused = refused or (0 if code in harmless else code)
            if refused:
                raise NetlinkRefusal(refused)

    def remove(self, kind: int, bodies: Sequence[bytes]) -> None:
        """Remove objects. A missing one does no harm."""
        self.change(kind, bodies, harmless=_GONE)

    def get(self, kind: int, body: bytes) -> bytes:
        """Return the message about one object."""
        self._send(kind, 0, [body])
        for found, _, message in self._receive():
            if found == _ERROR:
                raise NetlinkRefusal(_code_of(message) or errno.ENOENT)
            return message
        raise NetlinkRefusal(errno.ENOENT)

    def listed(self, kind: int, body: bytes) -> list[bytes]:
        """Return a message about each object. The kernel may list too much."""
        found: list[bytes] = []
        for _ in range(MAX_LISTINGS):
            self._send(kind, _DUMP, [body])
            found, is_whole = self._one_listing()
            if is_whole:
                break
        return found

    def _one_listing(self) -> tuple[list[bytes], bool]:
        """Return the listed messages, and whether nothing changed meanwhile."""
        found: list[bytes] = []
        is_whole = True
        while True:
            for kind, flags, message in self._receive():
                is_whole = is_whole and not flags & _INTERRUPTED
                if kind in (_DONE, _ERROR):
                    code = _code_of(message)
                    if code in _NOTHING_TO_LIST:
                        return [], True
                    if code:
                        raise NetlinkRefusal(code)
                    return found, is_whole
                found.append(message)

    def _send(self, kind: int, flags: int, bodies: Sequence[bytes]) -> None:
        """Send a message for each body in one datagram."""
        self._serial += 1
        parts = []
        for body in bodies:
            parts.append(HEADER.pack(HEADER.size + len(body), kind, flags | _REQUEST, self._serial, 0))
            parts.append(body + bytes(aligned(len(body)) - len(body)))
        self._socket.send(b"".join(parts))

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield type, flags and bytes of each message of the next datagram."""
        data = self._socket.recv(_READ_SIZE)
        at = 0
        while at + HEADER.size <= len(data):
            length, kind, flags, serial, _ = HEADER.unpack_from(data, at)
            message = data[at : at + length]
            at += max(aligned(length), HEADER.size)
            if serial == self._serial:  # otherwise the rest of an answer that was not read to its end
                yield kind, flags, message


def attributes_of(data: bytes) -> dict[int, bytes]:
    """Return the attributes in ``data``; what is cut off is left out."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _ATTRIBUTE_KIND] = data[at + _ATTRIBUTE.size : at + length]
        at += aligned(length)
    return found


def packed(attributes: Mapping[int, bytes]) -> bytes:
    """Return the attributes as they are sent."""
    parts = []
    for kind, value in attributes.items():
        length = _ATTRIBUTE.size + len(value)
        parts.append(_ATTRIBUTE.pack(length, kind) + value + bytes(aligned(length) - length))
    return b"".join(parts)


def aligned(length: int) -> int:
    """Return the bytes that something of this length takes in a message."""
    return (length + 3) & ~3


def _code_of(message: bytes) -> int:
    """Return the errno in a message that ends an answer; 0 for success."""
    code = _CODE.unpack_from(message, HEADER.size)[0] if len(message) >= HEADER.size + _CODE.size else 0
    return int(max(0, -code))
