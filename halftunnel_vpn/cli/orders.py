"""Short orders to the daemon: `htvpn reconnect`, `reload`, `portal`, `repair`."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from halftunnel_vpn.cli import service
from halftunnel_vpn.control import client
from halftunnel_vpn.errors import HostError


def reconnect(options: Namespace) -> int:
    """Every leg anew; flows stay."""
    service.command(options.socket, "POST", "/v1/reconnect")
    print("every leg is opened anew")
    return 0


def reload(options: Namespace) -> int:
    """The profile is read again."""
    service.command(options.socket, "POST", "/v1/reload")
    print("the profile is read again")
    return 0


def portal(options: Namespace) -> int:
    """Let a captive portal be reached for a while."""
    service.command(options.socket, "POST", "/v1/portal", {"seconds": options.minutes * 60.0})
    if options.minutes:
        print(f"open for {options.minutes:g} min: log in now; 'htvpn portal --minutes 0' closes it")
    else:
        print("closed")
    return 0


def repair(options: Namespace) -> int:
    """Undo what a killed client left: through the daemon where one runs, else here, as root."""
    if client.is_served(options.socket) and not options.lift:
        repaired = service.command(options.socket, "POST", "/v1/repair")["repaired"]
    else:
        if os.geteuid() != 0:
            raise HostError("no daemon runs, so only root can repair this host; run this as root")
        repaired = _repair_here(lift=options.lift)
    print("\n".join(f"put back: {what}" for what in repaired) if repaired else "nothing was left to put back")
    return 0


def _repair_here(*, lift: bool) -> list[str]:
    from pathlib import Path

    from halftunnel_vpn.host.journal import DEFAULT_STATE_DIR
    from halftunnel_vpn.host.network import HostNetwork
    from halftunnel_vpn.host.protection import Protection

    state_dir = Path(os.environ.get("STATE_DIRECTORY", DEFAULT_STATE_DIR))
    guard = Protection(state_dir)
    after = None if lift else guard.remembered()  # no gap while the kill switch is to stay
    repaired = [
        f"what the tunnel {device} had changed"
        for device in HostNetwork.cleanup_leftovers(state_dir, after=after)
    ]
    if lift and (guard.path.exists() or _protects()):
        guard.lift()
        repaired.append("the kill switch")
    elif guard.path.exists():
        print("htvpn: the kill switch stays; 'htvpn repair --lift' lifts it", file=sys.stderr)
    return repaired


def _protects() -> bool:
    from halftunnel_vpn.host import nft

    return nft.find_program() is not None and nft.listing() is not None
