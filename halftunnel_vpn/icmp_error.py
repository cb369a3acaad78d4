"""Kinds of ICMP errors, shared by the wire format and the IP packets."""

from __future__ import annotations

from enum import IntEnum


class IcmpErrorKind(IntEnum):
    """What an ICMP or ICMPv6 error reports, in terms of both families (RFC 792, RFC 4443)."""

    NET_UNREACHABLE = 1
    HOST_UNREACHABLE = 2
    PROTOCOL_UNREACHABLE = 3
    PORT_UNREACHABLE = 4
    ADMIN_PROHIBITED = 5
    TIME_EXCEEDED = 6
    PACKET_TOO_BIG = 7
