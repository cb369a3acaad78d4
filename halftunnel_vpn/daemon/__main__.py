"""``python -m halftunnel_vpn.daemon``."""

from __future__ import annotations

from halftunnel_vpn.daemon.main import entry_point

entry_point()
