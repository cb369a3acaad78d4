"""Runs of UDP datagrams: several datagrams of the host are sent together.

Most frames of a busy UDP flow differ from the one before only in payload, identification and checksums. The
rest of the headers is the key of a *path*. The general code finds the flow, the run header and the validity
of a path once; they hold for every frame with that key. Datagrams of one path in one batch of frames are
sent as one run. A datagram of another path of the same flow ends the run, so the order within the flow is
kept.
"""

from __future__ import annotations

import struct
from typing import Final

from halftunnel_vpn.inet import ip, udp, vnet
from halftunnel_vpn.inet.checksum import ONES

MAX_PATHS: Final = 1024
"""Cached paths. When there are more, all are dropped and built again by the general code."""

MIN_V4: Final = vnet.VNET_HEADER_LENGTH + ip.IPV4_HEADER_LENGTH + udp.HEADER_LENGTH
MIN_V6: Final = vnet.VNET_HEADER_LENGTH + ip.IPV6_HEADER_LENGTH + udp.HEADER_LENGTH
"""The number of bytes before the payload of a frame whose IP header has no options."""

_FIRST_AT: Final = vnet.VNET_HEADER_LENGTH
_PROTOCOL_AT_V4: Final = vnet.VNET_HEADER_LENGTH + 9
_PROTOCOL_AT_V6: Final = vnet.VNET_HEADER_LENGTH + 6
_V4: Final = 0x45
"""The first byte of an IPv4 packet without options."""
_V6: Final = 0x60
"""The first byte of an IPv6 packet. Its low half belongs to the traffic class."""

_identity: Final = struct.Struct(">14xH4xH").unpack_from
"""Identification and header checksum of an IPv4 frame, which differ between frames of one path."""


def key_of(frame: bytes) -> bytes | None:
    """Return the path key of a frame (of MIN_V4 bytes or more); None if it cannot be on any path."""
    if frame[1] or not frame[0] & vnet.CHECKSUM_TRUSTED:
        return None
    if frame[_FIRST_AT] == _V4 and frame[_PROTOCOL_AT_V4] == ip.PROTOCOL_UDP:
        # all except identification, header checksum and UDP checksum
        return frame[:14] + frame[16:20] + frame[22:36]
    if frame[_FIRST_AT] & 0xF0 == _V6 and frame[_PROTOCOL_AT_V6] == ip.PROTOCOL_UDP and len(frame) >= MIN_V6:
        return frame[:56]  # all except the UDP checksum
    return None


def header_sum(frame: bytes) -> int:
    """Return a value that all valid IPv4 frames of one path share: identification plus checksum."""
    identification, checksum = _identity(frame)
    return (identification + checksum) % ONES  # type: ignore[no-any-return]
