"""The fast path of TCP: plain frames, which are read without an object for packet or segment.

Nearly every frame of an established connection is plain: a whole IP packet without options and with trusted
checksums, whose segment has ACK, perhaps PSH, and no options. :func:`read` makes all checks of
:mod:`halftunnel_vpn.inet` except those of addresses and ports. These are part of the key, and no flow with
invalid ones exists. All other frames (fragments, options, SYN, FIN, RST, URG, untrusted checksums, malformed
packets) take the general path, which also counts what it drops.
"""

from __future__ import annotations

import struct
from typing import Final

from halftunnel_vpn.inet import ip, tcp, vnet
from halftunnel_vpn.inet.checksum import ONES

Plain = tuple[bytes, int, int, int, memoryview]
"""Key of the flow, sequence number, acknowledgement number, window field, and text."""

_IP_AT: Final = vnet.VNET_HEADER_LENGTH
_V4_TEXT_AT: Final = _IP_AT + ip.IPV4_HEADER_LENGTH + tcp.HEADER_LENGTH
_V6_TEXT_AT: Final = _IP_AT + ip.IPV6_HEADER_LENGTH + tcp.HEADER_LENGTH
_V4_KEY_AT: Final = _IP_AT + 12
_V4_KEY_END: Final = _IP_AT + 24
_V6_KEY_AT: Final = _IP_AT + 8
_V6_KEY_END: Final = _IP_AT + 44
"""The position of addresses and ports. They are adjacent in both IP versions."""

_V4: Final = 0x45
"""The first byte of an IPv4 header without options."""
_V6: Final = 6

_read_v4: Final = struct.Struct(f">{_IP_AT}x5I4xIIHH").unpack_from
_read_v6: Final = struct.Struct(f">{_IP_AT}x4xHB37xIIHH").unpack_from
_Words = tuple[int, int, int, int, int, int, int, int, int]

EXAMINED_FLAGS: Final = tcp.FIN | tcp.SYN | tcp.RST | tcp.ACK | tcp.URG
"""Of these flags a plain segment has ACK and no other."""

_SHAPE: Final = 0xF000 | EXAMINED_FLAGS
"""The bits of data offset and flags that every plain segment has the same."""
_PLAIN_SHAPE: Final = 0x5000 | tcp.ACK
_FRAGMENT: Final = 0x3FFF
_NO_TEXT: Final = memoryview(b"")


def read(frame: bytes) -> Plain | None:
    """Read the plain ``frame`` (a vnet header and an IP packet); return None if it is not plain."""
    length = len(frame)
    if length < _V4_TEXT_AT or not frame[0] & vnet.CHECKSUM_TRUSTED:
        return None
    sequence: int
    acknowledgement: int
    shape: int
    window: int
    # Words of 32 bits: the compiled build computes with them without objects.
    lengths: int
    place: int
    protocol: int
    source: int
    destination: int
    first = frame[_IP_AT]
    if first == _V4:
        words: _Words = _read_v4(frame)
        lengths, place, protocol, source, destination, sequence, acknowledgement, shape, window = words
        if (
            shape & _SHAPE != _PLAIN_SHAPE
            or protocol >> 16 & 0xFF != ip.PROTOCOL_TCP
            or (lengths & 0xFFFF) + _IP_AT != length
            or place & _FRAGMENT
            or (lengths + place + protocol + source + destination) % ONES
        ):
            return None
        return (
            frame[_V4_KEY_AT:_V4_KEY_END],
            sequence,
            acknowledgement,
            window,
            memoryview(frame)[_V4_TEXT_AT:] if length > _V4_TEXT_AT else _NO_TEXT,
        )
    if first >> 4 == _V6 and length >= _V6_TEXT_AT:
        lengths, protocol, sequence, acknowledgement, shape, window = _read_v6(frame)
        if (
            shape & _SHAPE != _PLAIN_SHAPE
            or protocol != ip.PROTOCOL_TCP
            or lengths + _IP_AT + ip.IPV6_HEADER_LENGTH != length
        ):
            return None
        return (
            frame[_V6_KEY_AT:_V6_KEY_END],
            sequence,
            acknowledgement,
            window,
            memoryview(frame)[_V6_TEXT_AT:] if length > _V6_TEXT_AT else _NO_TEXT,
        )
    return None
