"""What a process gives to each of its tunnels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.observe.telemetry_port import NO_TELEMETRY, TelemetryPort
from halftunnel_vpn.protocol.interfaces import ProxyPort, StreamOpener
from halftunnel_vpn.transport.driver import Driver

MakeProxy = Callable[[ClientProfile, StreamOpener, Driver, Counters], ProxyPort | None]
"""Makes the proxy that the profile asks for, None when it asks for none."""


class Companions(NamedTuple):
    """What runs beside a tunnel."""

    make_proxy: MakeProxy = lambda profile, opener, driver, counters: None
    telemetry: TelemetryPort = NO_TELEMETRY


ALONE = Companions()
"""Nothing runs beside it."""
