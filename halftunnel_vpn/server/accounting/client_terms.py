"""Whether a client may connect: a decision about its entry, the day and what it has used."""

from __future__ import annotations

from halftunnel_vpn.config.clients import ClientEntry
from halftunnel_vpn.protocol.handshake_payloads import ExitStatus


def refusal(entry: ClientEntry, day: str, used: int) -> ExitStatus | None:
    """Return why the client of ``entry`` may not connect; None if it may.

    ``day`` is today's date in UTC, ``used`` the bytes of this month, both directions together. The last day
    of a client counts whole.
    """
    if entry.disabled:
        return ExitStatus.DISABLED
    if entry.expires is not None and day > entry.expires:
        return ExitStatus.EXPIRED
    if entry.quota is not None and used >= entry.quota:
        return ExitStatus.QUOTA_USED_UP
    return None
