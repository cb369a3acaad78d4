"""Bounds of a connection to a name with several addresses (RFC 8305), for legs and for destinations."""

from __future__ import annotations

from typing import Final

MAX_ADDRESSES: Final = 8
"""Addresses of one name that are tried."""

ATTEMPT_DELAY: Final = 0.25
"""Seconds that one attempt has before the next begins beside it (RFC 8305 section 5)."""
