"""Every error that crosses a module boundary, grouped by whose fault it is.

The message of an error that can reach the user is one sentence that tells the user what to do.
``reason`` is a short, stable, lower-case label with hyphens: the label under which a drop or a
refusal is counted.
"""

from __future__ import annotations


class HalfTunnelError(Exception):
    """Root of the tree."""


# --- the person's fault: what was asked for cannot be meant -------------------------------------


class UsageError(HalfTunnelError):
    """A command line that cannot be carried out as written (exit code 2)."""


class ConfigError(HalfTunnelError):
    """A configuration or profile that names an unknown key or holds a value that is not allowed."""


# --- this host's fault --------------------------------------------------------------------------


class HostError(HalfTunnelError):
    """This machine lacks something (root, /dev/net/tun, nft) or has it in use."""


# --- our own fault ------------------------------------------------------------------------------


class UnexpectedEnd(HalfTunnelError):
    """A task that must live as long as its process has ended: the process ends, and is started again."""


# --- the road's fault ---------------------------------------------------------------------------


class RoadError(HalfTunnelError):
    """A leg could not be opened or was lost: names, routes, TLS, proxies, HTTP status."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UpstreamUnavailable(RoadError):
    """No leg of a direction can be had."""


# --- the peer's fault ---------------------------------------------------------------------------


class PeerError(HalfTunnelError):
    """The other end sent something that it must not send. Counted under ``reason``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class WireError(PeerError):
    """Bytes that are no packet of the wire format."""


class RecordError(PeerError):
    """A record that does not authenticate or is out of bounds."""


class HandshakeError(PeerError):
    """A handshake or join message that is forged, replayed, stale or malformed."""


class FlowControlError(PeerError):
    """Data beyond the credit that was granted, or an acknowledgement of what was never sent."""


class PacketError(PeerError):
    """An IP packet from the TUN device that is malformed."""


class DnsError(PeerError):
    """A DNS message that is malformed."""


# --- the session's life -------------------------------------------------------------------------


class SessionError(HalfTunnelError):
    """The session cannot serve the request."""


class SessionExpired(SessionError):
    """The exit does not know the session any more."""


class StreamClosed(SessionError):
    """The stream is closed for what was asked of it."""


class IllegalTransition(SessionError):
    """A state machine was given an event that its state does not list."""


def first_leaf(error: BaseException) -> BaseException:
    """The first error inside nested exception groups: what a TaskGroup's body or task really raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
