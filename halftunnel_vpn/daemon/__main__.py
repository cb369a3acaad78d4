"""``python -m halftunnel_vpn.daemon``."""

from __future__ import annotations

import gc

gc.disable()  # imports make next to no garbage; the event loop enables it

from halftunnel_vpn.daemon.main import entry_point  # noqa: E402

entry_point()
