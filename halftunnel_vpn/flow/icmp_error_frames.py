"""ICMP errors for this host's own datagrams, made from what the exit tells."""

from __future__ import annotations

from halftunnel_vpn.inet import icmp, ip
from halftunnel_vpn.protocol.datagram import ErrorRun


def error_frame(run: ErrorRun, local: bytes, destination: bytes, protocol: int, body: bytes) -> bytes | None:
    """The frame that tells the host at ``local`` of the error that its datagram to ``destination`` met.

    The quoted datagram is made anew from the addresses, the IP ``protocol`` and ``body``, its first bytes:
    what the host needs to find its socket. None when no error may be sent, as to a multicast destination.
    """
    header = ip.build(local, destination, protocol, len(body))
    original = ip.parse(memoryview(header + body))
    # of an error that the exit met by itself nobody told: then the destination seems to have said so
    offender = run.offender if len(run.offender) == len(local) else destination
    return icmp.build_error(original, run.kind, source=offender, mtu=run.mtu)
