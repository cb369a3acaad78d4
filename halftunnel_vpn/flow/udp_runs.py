"""Runs of UDP datagrams: what the host sends one by one travels together.

Most frames of a busy UDP flow differ from the one before in nothing but payload, identification and
checksums. The rest of the headers is the key of a *path*: what the slow way has found out about it once
(flow, run header, validity) holds for every frame with that key. Datagrams of one path that come in one
batch of frames leave as one run; a datagram of another path of the same flow ends the run, so the order
within a flow stays as it was.
"""

from __future__ import annotations

import struct
from typing import Final

from halftunnel_vpn.inet import ip, udp, vnet
from halftunnel_vpn.inet.checksum import ONES

MAX_PATHS: Final = 1024
"""Paths that are remembered; beyond it all are forgotten, and found again by the slow way."""

MIN_V4: Final = vnet.VNET_HEADER_LENGTH + ip.IPV4_HEADER_LENGTH + udp.HEADER_LENGTH
MIN_V6: Final = vnet.VNET_HEADER_LENGTH + ip.IPV6_HEADER_LENGTH + udp.HEADER_LENGTH
"""Bytes in front of the payload of a frame whose IP header has no options."""

_FIRST_AT: Final = vnet.VNET_HEADER_LENGTH
_PROTOCOL_AT_V4: Final = vnet.VNET_HEADER_LENGTH + 9
_PROTOCOL_AT_V6: Final = vnet.VNET_HEADER_LENGTH + 6
_V4: Final = 0x45
"""First byte of an IPv4 packet without options."""
_V6: Final = 0x60
"""First byte of an IPv6 packet; the low half belongs to the traffic class."""

_identity: Final = struct.Struct(">14xH4xH").unpack_from
"""Identification and header checksum of an IPv4 frame: what differs between frames of one path."""


def key_of(frame: bytes) -> bytes | None:
    """What all frames of one path share; None for a frame (of MIN_V4 bytes or more) that can be on none."""
    if frame[1] or not frame[0] & vnet.CHECKSUM_TRUSTED:
        return None
    if frame[_FIRST_AT] == _V4 and frame[_PROTOCOL_AT_V4] == ip.PROTOCOL_UDP:
        # all but identification, header checksum and UDP checksum
        return frame[:14] + frame[16:20] + frame[22:36]
    if frame[_FIRST_AT] & 0xF0 == _V6 and frame[_PROTOCOL_AT_V6] == ip.PROTOCOL_UDP and len(frame) >= MIN_V6:
        return frame[:56]  # all but the UDP checksum
    return None


def header_sum(frame: bytes) -> int:
    """Return what is equal for all valid IPv4 frames of one path: nothing else in their headers differs."""
    identification, checksum = _identity(frame)
    return (identification + checksum) % ONES  # type: ignore[no-any-return]
