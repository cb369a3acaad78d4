"""ICMP errors for this host's own datagrams, made from what the exit tells."""

from __future__ import annotations

import struct
from collections.abc import Callable

from halftunnel_vpn.flow.ports import DnsPort, FrameWriter
from halftunnel_vpn.packet import icmp, ip
from halftunnel_vpn.protocol.datagram import ErrorRun

_UDP_HEADER = struct.Struct(">HHHH")
_ECHO_HEADER = struct.Struct(">BBHHH")
_ECHO_REQUEST = {4: 8, 16: 128}
_ECHO_PROTOCOL = {4: ip.PROTOCOL_ICMP, 16: ip.PROTOCOL_ICMPV6}

Quote = Callable[[bytes, int], bytes]
"""Makes the first bytes of the datagram that met the error, from its destination and port or sequence."""


def quote_udp(source_port: int) -> Quote:
    """Quotes of UDP datagrams from ``source_port``."""
    return lambda destination, port: _UDP_HEADER.pack(source_port, port, _UDP_HEADER.size, 0)


def quote_echo(identifier: int) -> Quote:
    """Quotes of echo requests with ``identifier``."""
    return lambda destination, sequence: _ECHO_HEADER.pack(
        _ECHO_REQUEST[len(destination)], 0, 0, identifier, sequence
    )


def write_error(
    run: ErrorRun, local: bytes, protocol: int, quote: Quote, dns: DnsPort, write: FrameWriter
) -> bool:
    """Tell the host at ``local`` of the error in ``run``; False when it cannot be put into an IP packet.

    The quoted datagram is made anew from the addresses and ports: what the host needs to find its socket.
    """
    version = 4 if len(local) == 4 else 6
    destination = run.address
    if isinstance(destination, str):
        fake = dns.address_of(destination, version)
        if fake is None:
            return False
        destination = fake
    if len(destination) != len(local):
        return False
    body = quote(destination, run.port)
    original = ip.parse(memoryview(ip.build(local, destination, protocol, len(body)) + body))
    offender = run.offender if len(run.offender) == len(local) else destination
    frame = icmp.build_error(original, icmp.IcmpErrorKind(run.kind), source=offender, mtu=run.mtu)
    if frame is None:
        return False
    write((frame,))
    return True


def echo_protocol(address: bytes) -> int:
    """The protocol number of echo requests to or from ``address``."""
    return _ECHO_PROTOCOL[len(address)]
