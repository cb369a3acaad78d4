"""What a failed handshake means, in one sentence for the user."""

from __future__ import annotations

import time

from halftunnel_vpn.errors import HalfTunnelError, HandshakeError, RoadError
from halftunnel_vpn.protocol.handshake import HandshakeRefused
from halftunnel_vpn.protocol.handshake_payloads import ExitStatus

_REFUSED = {
    ExitStatus.DISABLED: "The operator of the exit has disabled this client: ask for it to be enabled.",
    ExitStatus.EXPIRED: "The time of this client at the exit is over: ask its operator for a later date.",
    ExitStatus.INVITATION_USED: "This invitation has been used: ask the exit's operator for another one.",
    ExitStatus.INVITATION_EXPIRED: "The time of this invitation is over: ask the operator of the exit for "
    "another one.",
    ExitStatus.QUOTA_USED_UP: "This client has used up its bytes of this month at the exit: wait for the "
    "next month (UTC), or ask its operator for more.",
}


def explain(error: HandshakeError) -> str:
    """Return one sentence that says what to do about a failed handshake."""
    if isinstance(error, HandshakeRefused):
        status = error.exit_hello.status
        if status is ExitStatus.CLOCK_SKEW:
            seconds = error.exit_hello.wall_time / 1e6 - time.time()
            direction = "behind" if seconds > 0 else "ahead of"
            return (
                f"The clock of this machine is {abs(seconds) / 60:.0f} minutes {direction} the exit's, and "
                "the exit refuses its own time, too: compare both clocks."
            )
        if status is ExitStatus.STALE_TIME:
            return (
                "The exit has seen a later time from this profile, again and again: another device uses the "
                "same profile; give each its own (htvpn server add-client)."
            )
        if status is ExitStatus.SESSION_LIMIT:
            return "The exit allows this client no further session: end one elsewhere and try again."
        if status in _REFUSED:
            return _REFUSED[status]
        return "The exit is overloaded: try again later."
    return (
        f"The exit's answer is not genuine ({error.reason}): check [exit] public_key in the profile, "
        "or get a new profile from the exit (htvpn server add-client)."
    )


def is_passing(failure: HalfTunnelError) -> bool:
    """Return whether another attempt may succeed without a change on this host."""
    return isinstance(failure, RoadError | HandshakeRefused)
