"""The proxy beside a tunnel. What serves it is imported only where a profile asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.peer import group_id
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.interfaces import ProxyPort, StreamOpener

if TYPE_CHECKING:
    from halftunnel_vpn.transport.driver import Driver


def proxy_beside_tunnel(
    profile: ClientProfile, opener: StreamOpener, driver: Driver, counters: Counters
) -> ProxyPort | None:
    """Return the proxy that ``[proxy_server]`` asks for, None when it asks for none.

    The members of the group of the control socket may use its Unix sockets.
    """
    config = profile.proxy_server
    if not config.is_wanted:
        return None
    from halftunnel_vpn.proxy.service import ProxyService

    return ProxyService(config, opener, driver, counters, group=group_id())
