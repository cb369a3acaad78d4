"""Requests to the kernel over rtnetlink: messages, attributes and answers. See netlink(7), rtnetlink(7)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, TypeVar

REPLY_SIZE: Final = 65536
"""Bytes read at one time: more than the largest datagram of the kernel."""

REPLY_TIMEOUT: Final = 10.0
"""Seconds to wait for an answer. The kernel answers before the request returns."""

MAX_DUMPS: Final = 5
"""How often a list is read again that changed while it was read. The last reading counts."""

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

_REQUEST: Final = 0x1
_ACKNOWLEDGE: Final = 0x4
_INTERRUPTED: Final = 0x10
_DUMP: Final = 0x300
_CREATE: Final = 0x600  # NLM_F_CREATE | NLM_F_EXCL
_ERROR: Final = 2
_DONE: Final = 3
_SOL_NETLINK: Final = 270
_STRICT_CHECK: Final = 12  # NETLINK_GET_STRICT_CHK: the kernel filters what it lists (Linux 4.20)
_NESTED: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_MESSAGE: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NUMBER: Final = struct.Struct("=i")

_NOTHING_TO_LIST: Final = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""Errors of a list of what the kernel lacks: a table without routes, an IP version that is turned off."""

_Item = TypeVar("_Item")

Attributes = Mapping[int, bytes]
"""The value of each attribute by its number; of several with one number, the last."""


class NetlinkRefusal(Exception):
    """The kernel refused a request. ``code`` is an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.code = code


class Message(NamedTuple):
    """An object of the kernel: the fixed ``header`` of its kind, and its attributes."""

    header: bytes
    attributes: Attributes


class RouteSocket:
    """A netlink socket in the network namespace of this thread. Raises OSError, and NetlinkRefusal."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._serial = 0
        try:
            self._socket.settimeout(REPLY_TIMEOUT)
            self._socket.bind((0, 0))
            with contextlib.suppress(OSError):  # an older kernel lists everything
                self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        except OSError:
            self.close()
            raise

    def __enter__(self) -> RouteSocket:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def create(self, kind: int, header: bytes, attributes: Attributes) -> None:
        """Make an object that does not exist yet."""
        for _ in self._ask(kind, _ACKNOWLEDGE | _CREATE, header, attributes):
            pass

    def change(self, kind: int, header: bytes, attributes: Attributes) -> None:
        """Change or remove an object."""
        for _ in self._ask(kind, _ACKNOWLEDGE, header, attributes):
            pass

    def get(self, kind: int, header: bytes, attributes: Attributes) -> Message:
        """Return one object."""
        found = [body for _, body in self._ask(kind, _ACKNOWLEDGE, header, attributes)]
        if not found:
            raise NetlinkRefusal(errno.ENOENT)
        return _parse(found[0], len(header))

    def list(
        self, kind: int, header: bytes, attributes: Attributes, read: Callable[[Message], _Item | None]
    ) -> list[_Item]:
        """Return what ``read`` makes of each object, without None. The kernel may list too much."""
        found: list[_Item] = []
        for _ in range(MAX_DUMPS):
            found, is_whole = [], True
            try:
                for flags, body in self._ask(kind, _DUMP, header, attributes):
                    is_whole = is_whole and not flags & _INTERRUPTED
                    item = read(_parse(body, len(header)))
                    if item is not None:
                        found.append(item)
            except NetlinkRefusal as refusal:
                if refusal.code not in _NOTHING_TO_LIST:
                    raise
                return []
            if is_whole:
                break
        return found

    def _ask(
        self, kind: int, flags: int, header: bytes, attributes: Attributes
    ) -> Iterator[tuple[int, bytes]]:
        """Send a request; yield flags and body of each message of the answer, until it ends."""
        self._serial += 1
        body = header + pack(attributes)
        length = _MESSAGE.size + len(body)
        self._socket.send(_MESSAGE.pack(length, kind, flags | _REQUEST, self._serial, 0) + body)
        while True:
            reply = self._socket.recv(REPLY_SIZE)
            at = 0
            while at + _MESSAGE.size <= len(reply):
                length, found, message_flags, serial, _ = _MESSAGE.unpack_from(reply, at)
                body = reply[at + _MESSAGE.size : at + length]
                at += max(_aligned(length), _MESSAGE.size)
                if serial != self._serial:
                    continue  # the rest of a list that was not read to its end
                if found in (_ERROR, _DONE):
                    code = -_NUMBER.unpack_from(body)[0] if len(body) >= _NUMBER.size else 0
                    if code > 0:
                        raise NetlinkRefusal(code)
                    return
                yield message_flags, body


def pack(attributes: Attributes) -> bytes:
    """Return the attributes as they are sent."""
    parts = []
    for number, value in attributes.items():
        length = _ATTRIBUTE.size + len(value)
        parts.append(_ATTRIBUTE.pack(length, number) + value + bytes(_aligned(length) - length))
    return b"".join(parts)


def unpack(data: bytes) -> dict[int, bytes]:
    """Return the attributes in ``data``; what is cut off is left out."""
    found = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, number = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[number & _NESTED] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def _parse(body: bytes, header_length: int) -> Message:
    return Message(body[:header_length], unpack(body[header_length:]))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
