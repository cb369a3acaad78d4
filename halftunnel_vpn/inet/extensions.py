"""The chain of IPv6 extension headers (RFC 8200, section 4), walked within bounds.

We are the end of the road for what comes from the TUN, so hop-by-hop and destination options are checked
and skipped, a routing header must be used up, and a fragment header is reported.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from halftunnel_vpn.errors import PacketError

HOP_BY_HOP: Final = 0
ROUTING: Final = 43
FRAGMENT: Final = 44
DESTINATION_OPTIONS: Final = 60
EXTENSION_HEADERS: Final = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS})

MAX_EXTENSION_HEADERS: Final = 8
"""Extension headers of one IP packet; more of them is an attack."""
MAX_EXTENSION_OPTIONS: Final = 32
"""Options, padding included, of all its headers together (RFC 8504, section 5.3, allows far fewer)."""

_FIRST_HEADER_AT: Final = 40
_NEXT_HEADER_AT: Final = 6
_FRAGMENT_LAYOUT: Final = struct.Struct(">BxHI")
_FRAGMENT_LENGTH: Final = 8
_OFFSET: Final = 0xFFF8  # in bytes as it stands
_MORE: Final = 0x0001
_PAD1: Final = 0
_UNKNOWN_MUST_DISCARD: Final = 0xC0
_BAD: Final = "ip-bad-extension"


class HeaderChain(NamedTuple):
    """What the walk found.

    ``protocol`` stands at byte ``protocol_at`` of the IP packet and its header begins at byte ``end``;
    ``fragment`` is (identification, offset in bytes, more), None for a whole packet.
    """

    protocol: int
    protocol_at: int
    end: int
    fragment: tuple[int, int, bool] | None


def walk(raw: memoryview) -> HeaderChain:
    """Walk the chain of the IPv6 packet ``raw`` (at least its fixed header, cut to its length).

    Behind the header of a fragment that is not the whole datagram nothing is read.
    Raises PacketError: ip-bad-extension, ip-source-route (a routing header of type 0, RFC 5095, or one with
    segments left).
    """
    protocol_at = _NEXT_HEADER_AT
    protocol = raw[protocol_at]
    at = _FIRST_HEADER_AT
    headers = options = 0
    seen_fragment = False
    while protocol in EXTENSION_HEADERS:
        headers += 1
        if headers > MAX_EXTENSION_HEADERS:
            raise PacketError(_BAD, "chain too long")
        if at + 8 > len(raw):
            raise PacketError(_BAD, "chain cut off")
        if protocol == FRAGMENT:
            if seen_fragment:
                raise PacketError(_BAD, "two fragment headers")
            seen_fragment = True
            following, field, identification = _FRAGMENT_LAYOUT.unpack_from(raw, at)
            if following == HOP_BY_HOP:
                raise PacketError(_BAD, "hop-by-hop options not in first place")
            end = at + _FRAGMENT_LENGTH
            offset, more = field & _OFFSET, field & _MORE == 1
            # Offset 0 and nothing more is an atomic fragment: a whole datagram (RFC 6946).
            if offset or more:
                return HeaderChain(following, at, end, (identification, offset, more))
        else:
            end = at + 8 + 8 * raw[at + 1]
            if end > len(raw):
                raise PacketError(_BAD, "header cut off")
            if protocol == ROUTING:
                if raw[at + 2] == 0 or raw[at + 3]:
                    raise PacketError("ip-source-route", f"routing header of type {raw[at + 2]}")
            elif protocol == HOP_BY_HOP and at != _FIRST_HEADER_AT:
                raise PacketError(_BAD, "hop-by-hop options not in first place")
            else:
                options = _check_options(raw, at + 2, end, options)
        protocol_at = at
        protocol = raw[at]
        at = end
    return HeaderChain(protocol, protocol_at, at, None)


def _check_options(raw: memoryview, at: int, end: int, count: int) -> int:
    """Check the options in ``raw[at:end]``; returns the number of options of the packet so far."""
    while at < end:
        count += 1
        if count > MAX_EXTENSION_OPTIONS:
            raise PacketError(_BAD, "too many options")
        kind = raw[at]
        if kind == _PAD1:
            at += 1
            continue
        if kind & _UNKNOWN_MUST_DISCARD:
            raise PacketError(_BAD, f"option {kind}")
        if at + 2 > end:
            raise PacketError(_BAD, "option cut off")
        at += 2 + raw[at + 1]
    if at != end:
        raise PacketError(_BAD, "option cut off")
    return count
