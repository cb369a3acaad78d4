"""What an exit itself answers to its clients: the address and the ports inside the tunnel.

The address is one of the IETF's protocol assignments (RFC 6890), which nobody can reach on the Internet. An
exit of an earlier version refuses it as every special-purpose address.
"""

from __future__ import annotations

from typing import Final

SERVICE_ADDRESS: Final = "192.0.0.88"

SERVICE_HOST: Final = bytes((192, 0, 0, 88))
"""The same as an OPEN has it."""

ADDRESSES_PORT: Final = 1
"""The exit answers with a JSON object of the addresses with which destinations see it, and ends."""

DOWNLOAD_PORT: Final = 2
"""The exit sends zeros until the client ends, or for MAX_MEASUREMENT bytes."""

UPLOAD_PORT: Final = 3
"""The exit counts what the client sends; after the FIN it answers with the number, in decimal digits."""

MAX_MEASUREMENT: Final = 1 << 30
"""Bytes of one measurement."""

MAX_SECONDS: Final = 15.0
"""Seconds for which one connection to the exit itself lasts."""
