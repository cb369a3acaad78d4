"""ICMP errors for the datagrams of this host, built from the errors that the exit reports."""

from __future__ import annotations

from halftunnel_vpn.inet import icmp, ip
from halftunnel_vpn.protocol.datagram import ErrorRun


def error_frame(run: ErrorRun, local: bytes, destination: bytes, protocol: int, body: bytes) -> bytes | None:
    """Return the ICMP error for the host at ``local`` about its datagram to ``destination``.

    The quoted datagram is rebuilt from the addresses, the IP ``protocol`` and ``body``, its first bytes. The
    host needs these to find the socket. Return None when no error may be sent, e.g. to a multicast
    destination.
    """
    header = ip.build(local, destination, protocol, len(body))
    original = ip.parse(memoryview(header + body))
    # For an error that the exit found by itself the destination stands as the source.
    offender = run.offender if len(run.offender) == len(local) else destination
    return icmp.build_error(original, run.kind, source=offender, mtu=run.mtu)
