"""One invitation of an exit: ``DIR/invitations/DIGEST.toml``."""

from __future__ import annotations

from halftunnel_vpn.config import values
from halftunnel_vpn.config.schema import config_table, option, parse, required


@config_table
class InvitationEntry:
    """The name of the invited client, and until when (seconds since 1970) it may join."""

    name: str = required(values.identifier)
    expires: int = required(values.integer(0, 2**53))
    used: bool = option(values.boolean, default=False)


def parse_invitation_entry(text: str, *, source: str) -> InvitationEntry:
    """Read the file of one invitation. Raises ConfigError with every problem found."""
    return parse(text, InvitationEntry, source=source)
