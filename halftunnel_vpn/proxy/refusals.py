"""Reasons for which a proxy refuses a request, as SOCKS reply codes, HTTP status codes and sentences."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from halftunnel_vpn.protocol.stream_messages import ResetCode

SOCKS5_SUCCEEDED: Final = 0
SOCKS4_GRANTED: Final = 90
SOCKS4_REFUSED: Final = 91


class _Codes(NamedTuple):
    socks5: int
    """Reply field of RFC 1928 section 6."""
    http: int
    """Status code of RFC 9110 section 15."""
    sentence: str


class Refusal(Enum):
    """One reason; the names are those that are counted."""

    FAILED = _Codes(1, 502, "the exit could not serve this connection")
    DENIED = _Codes(2, 403, "the exit does not allow this destination; see [egress] in its server.toml")
    NO_SESSION = _Codes(3, 503, "there is no connection to the exit now; try again later")
    NETWORK_UNREACHABLE = _Codes(3, 502, "the exit has no route to the destination")
    HOST_UNREACHABLE = _Codes(4, 502, "the destination cannot be reached from the exit")
    NAME_NOT_FOUND = _Codes(4, 502, "the exit finds no address for this name")
    TIMED_OUT = _Codes(4, 504, "the destination did not answer the exit in time")
    CONNECTION_REFUSED = _Codes(5, 502, "the destination refused the connection")
    HOP_LIMIT_EXCEEDED = _Codes(6, 502, "the packets to the destination exceed the hop limit")
    COMMAND_NOT_SUPPORTED = _Codes(7, 501, "this proxy does not support this command")
    ADDRESS_NOT_SUPPORTED = _Codes(8, 400, "this type of address is not supported")
    LIMIT = _Codes(1, 503, "a limit of the exit or of this client is reached; try again later")
    MALFORMED = _Codes(1, 400, "the request is malformed")
    BAD_NAME = _Codes(4, 400, "this is not a host name")

    @property
    def socks5(self) -> int:
        """The reply field of SOCKS5."""
        return self.value.socks5

    @property
    def http(self) -> int:
        """The status code of HTTP."""
        return self.value.http

    @property
    def sentence(self) -> str:
        """What the user reads."""
        return self.value.sentence

    @property
    def label(self) -> str:
        """The reason under which it is counted."""
        return f"proxy-{self.name.lower().replace('_', '-')}"


_OF_RESET: Final = {
    ResetCode.REFUSED: Refusal.CONNECTION_REFUSED,
    ResetCode.HOST_UNREACHABLE: Refusal.HOST_UNREACHABLE,
    ResetCode.NETWORK_UNREACHABLE: Refusal.NETWORK_UNREACHABLE,
    ResetCode.TIMED_OUT: Refusal.TIMED_OUT,
    ResetCode.DENIED: Refusal.DENIED,
    ResetCode.NAME_NOT_FOUND: Refusal.NAME_NOT_FOUND,
    ResetCode.LIMIT: Refusal.LIMIT,
    ResetCode.SHUTDOWN: Refusal.NO_SESSION,
    ResetCode.CONNECTION_RESET: Refusal.CONNECTION_REFUSED,
    ResetCode.HOP_LIMIT_EXCEEDED: Refusal.HOP_LIMIT_EXCEEDED,
}


def refusal_of(code: ResetCode) -> Refusal:
    """Return the reason for the program when a stream could not be opened."""
    return _OF_RESET.get(code, Refusal.FAILED)
