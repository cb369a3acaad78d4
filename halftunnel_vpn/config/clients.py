"""One client that the exit accepts: ``DIR/clients/NAME.toml``."""

from __future__ import annotations

from halftunnel_vpn.config import values
from halftunnel_vpn.config.schema import config_table, option, parse, required


@config_table
class ClientEntry:
    """Name, public key and day of admission of a client."""

    name: str = required(values.identifier)
    public_key: bytes = required(values.key)
    added: str = option(values.date, default="")


def parse_client_entry(text: str, *, source: str) -> ClientEntry:
    """Read the file of one client. Raises ConfigError with every problem found."""
    return parse(text, ClientEntry, source=source)
