"""Short commands for the daemon: `htvpn reconnect`, `reload`, `portal`, `repair`."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from halftunnel_vpn.cli import daemon_process
from halftunnel_vpn.control import requests
from halftunnel_vpn.errors import HostError


def reconnect(options: Namespace) -> int:
    """Make the daemon reopen every leg. Flows stay."""
    daemon_process.command(options.socket, "POST", "/v1/reconnect")
    print("reopening every connection")
    return 0


def reload(options: Namespace) -> int:
    """Make the daemon read its profile again."""
    daemon_process.command(options.socket, "POST", "/v1/reload")
    print("the profile was read again")
    return 0


def portal(options: Namespace) -> int:
    """Open a captive portal for a while."""
    daemon_process.command(options.socket, "POST", "/v1/portal", {"seconds": options.minutes * 60.0})
    if options.minutes:
        print(f"open for {options.minutes:g} min: log in now; 'htvpn portal --minutes 0' closes it")
    else:
        print("closed")
    return 0


def repair(options: Namespace) -> int:
    """Undo what a killed client left: by the daemon if one runs, otherwise in this process as root."""
    is_root = os.geteuid() == 0
    # --lift uses a running daemon but starts none: a corrupt file may prevent its start.
    if requests.is_served(options.socket) and not (options.lift and is_root and not _daemon_runs()):
        content = {"lift": True} if options.lift else {}
        repaired = daemon_process.command(options.socket, "POST", "/v1/repair", content)["repaired"]
    elif not is_root:
        raise HostError("no daemon runs, so only root can repair this host; run this as root")
    else:
        repaired = _repair_here(lift=options.lift)
    print("\n".join(f"restored: {what}" for what in repaired) if repaired else "there was nothing to restore")
    return 0


def _daemon_runs() -> bool:
    from halftunnel_vpn.host.record.journal import state_directory
    from halftunnel_vpn.host.record.lock import Role, holder_of

    holder = holder_of(state_directory())
    return holder is not None and holder.role is Role.DAEMON


def _repair_here(*, lift: bool) -> list[str]:
    """Repair while no other process of ours may change this host. Raises HostError if one does."""
    from halftunnel_vpn.host.record.journal import state_directory
    from halftunnel_vpn.host.record.lock import HostBusy, HostLock, Role

    state_dir = state_directory()
    try:
        with HostLock(state_dir, Role.REPAIR):
            return _repair_alone(state_dir, lift=lift)
    except HostBusy as busy:
        if busy.holder.role is Role.DAEMON:
            socket = shlex.quote(str(busy.holder.socket))
            raise HostError(
                f"the daemon runs but does not answer at this socket; name its socket with --socket {socket}"
            ) from None
        raise


def _repair_alone(state_dir: Path, *, lift: bool) -> list[str]:
    from halftunnel_vpn.host.host import Host
    from halftunnel_vpn.host.kernel.desired import Desired
    from halftunnel_vpn.host.record.wanted import Wanted

    host = Host(state_dir)
    after = None if lift else host.remembered()  # without a gap if the kill switch is to stay
    repaired = [f"what the tunnel {device} had changed" for device in host.recover(after)]
    if lift and host.has_traces():
        host.apply(Desired())
        Wanted.forget(state_dir)  # otherwise the next start of a daemon would enforce it again
        repaired.append("the kill switch")
    elif after is not None:
        print("htvpn: the kill switch stays; 'htvpn repair --lift' lifts it", file=sys.stderr)
    return repaired
