"""One client that the exit accepts: ``DIR/clients/NAME.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from halftunnel_vpn.config import amounts, values, writing
from halftunnel_vpn.config.schema import Rejected, config_table, option, parse, read_table, required
from halftunnel_vpn.errors import UsageError

CLIENTS: Final = "clients"
"""The directory of these files, in the directory of the exit."""


@config_table
class ClientEntry:
    """Name, public key and day of admission of a client, and its limits.

    ``expires`` is the last day (UTC) on which it may connect. ``quota`` is bytes of a month, both directions
    together; ``rate`` is bytes a second, for each direction.
    """

    name: str = required(values.identifier)
    public_key: bytes = required(values.key)
    added: str = option(values.date, default="")
    disabled: bool = option(values.boolean, default=False)
    expires: str | None = option(values.optional(amounts.last_day), default=None)
    quota: int | None = option(values.optional(amounts.quota), default=None)
    rate: float | None = option(values.optional(amounts.rate), default=None)


def parse_client_entry(text: str, *, source: str) -> ClientEntry:
    """Read the file of one client. Raises ConfigError with every problem found."""
    return parse(text, ClientEntry, source=source)


def changed_entry(text: str, changes: Mapping[str, str | bool | None], *, source: str) -> str:
    """Return the file ``text`` of a client with other values; None removes a key. Raises ConfigError."""
    parse_client_entry(text, source=source)
    table = {
        key: value if isinstance(value, bool | str) else str(value)
        for key, value in read_table(text, source).items()
    }
    for key, value in changes.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    changed = writing.render(table)
    parse_client_entry(changed, source=source)
    return changed


def checked_name(text: str) -> str:
    """Return the name of a client. Raises UsageError."""
    try:
        return values.identifier(text)
    except Rejected as rejected:
        raise UsageError(f"NAME {text!r}: must be {rejected.allowed}") from None
