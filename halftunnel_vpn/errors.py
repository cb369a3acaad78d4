"""Every error that crosses a module boundary, grouped by its origin.

The message of an error that can reach the user is one sentence that tells the user what to do.
``reason`` is a short, stable, lower-case label with hyphens, under which a drop or a refusal is counted.
"""

from __future__ import annotations

import sys
from typing import Final

EXTRAS: Final = {
    "audit": ("matplotlib>=3.8",),
    "otel": ("opentelemetry-sdk>=1.27", "opentelemetry-exporter-otlp-proto-http>=1.27", "requests>=2.28"),
    "tui": ("textual>=8.2",),
}
"""The packages of each optional part, as in pyproject.toml."""


class HalfTunnelError(Exception):
    """The base class of all errors."""


# --- errors of the user: the request is invalid -------------------------------------------------


class UsageError(HalfTunnelError):
    """A command line that is invalid (exit code 2)."""


class ConfigError(HalfTunnelError):
    """A configuration or profile with an unknown key or an invalid value."""


# --- errors of this host ------------------------------------------------------------------------


class HostError(HalfTunnelError):
    """This machine lacks something (root, /dev/net/tun, nft), or another program uses it."""


class MissingExtra(HostError):
    """The packages of the optional part ``extra`` are not installed; ``need`` says what needs them."""

    def __init__(self, need: str, extra: str) -> None:
        packages = " ".join(f"'{package}'" for package in EXTRAS[extra])
        super().__init__(f"{need}: run {sys.executable} -m pip install {packages}")


# --- errors of this program ---------------------------------------------------------------------


class UnexpectedEnd(HalfTunnelError):
    """A task that must live as long as its process has ended. The process must end and be restarted."""


# --- errors of the network path -----------------------------------------------------------------


class RoadError(HalfTunnelError):
    """A leg could not be opened or was lost: names, routes, TLS, proxies, HTTP status."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UpstreamUnavailable(RoadError):
    """No leg of a direction is available."""


# --- errors of the peer -------------------------------------------------------------------------


class PeerError(HalfTunnelError):
    """The other end sent something that it must not send. It is counted under ``reason``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class WireError(PeerError):
    """Bytes that are not a valid packet of the wire format."""


class RecordError(PeerError):
    """A record that does not authenticate or is out of bounds."""


class HandshakeError(PeerError):
    """A handshake or join message that is forged, replayed, stale or malformed."""


class FlowControlError(PeerError):
    """Data beyond the granted credit, or an acknowledgement of data that was never sent."""


class PacketError(PeerError):
    """An IP packet from the TUN device that is malformed."""


class DnsError(PeerError):
    """A DNS message that is malformed."""


# --- errors of the session ----------------------------------------------------------------------


class SessionError(HalfTunnelError):
    """The session cannot serve the request."""


class SessionExpired(SessionError):
    """The exit no longer knows the session."""


class StreamClosed(SessionError):
    """The stream is closed for this operation."""


class IllegalTransition(SessionError):
    """A state machine received an event that its present state does not list."""


def first_leaf(error: BaseException) -> BaseException:
    """Return the first error inside nested exception groups, i.e. the one that a task of a group raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
