"""The logger of the library websockets."""

from __future__ import annotations

import logging

WEBSOCKET_LOGGER = logging.getLogger("halftunnel_vpn.transport.websockets")
"""What websockets reports; its lines for each frame and connection are switched off."""
WEBSOCKET_LOGGER.setLevel(logging.WARNING)
