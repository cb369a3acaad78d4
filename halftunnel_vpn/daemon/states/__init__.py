"""The states, one file each: what each allows outside the tunnel, and where what happens leads."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from halftunnel_vpn.daemon.states.blocked import BLOCKED
from halftunnel_vpn.daemon.states.connected import CONNECTED
from halftunnel_vpn.daemon.states.connecting import CONNECTING
from halftunnel_vpn.daemon.states.disconnected import DISCONNECTED
from halftunnel_vpn.daemon.states.disconnecting import DISCONNECTING
from halftunnel_vpn.daemon.states.reconnecting import RECONNECTING
from halftunnel_vpn.daemon.states.state import Protection, State

STATES: Final[Mapping[str, State]] = MappingProxyType(
    {
        state.name: state
        for state in (DISCONNECTED, CONNECTING, CONNECTED, RECONNECTING, BLOCKED, DISCONNECTING)
    }
)

START: Final = DISCONNECTED

__all__ = ["START", "STATES", "Protection", "State"]
