"""Invitations as the gate sees them."""

from __future__ import annotations

from typing import Final, Protocol

from halftunnel_vpn.protocol.handshake_payloads import ExitStatus


class InvitationsPort(Protocol):
    """Admits clients that are not listed yet (``server/invitations.py``)."""

    def exist(self) -> bool:
        """Return whether the message of an unknown key is worth reading."""
        ...

    def admit(self, public_key: bytes, secret: bytes) -> ExitStatus | None:
        """Add the client; return OK, or why it is refused; None for an unknown secret."""
        ...


class _NoInvitations:
    def exist(self) -> bool:
        return False

    def admit(self, public_key: bytes, secret: bytes) -> ExitStatus | None:
        return None


NO_INVITATIONS: Final = _NoInvitations()
