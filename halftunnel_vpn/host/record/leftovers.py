"""What a client that has ended has left on this host. Nothing is changed here."""

from __future__ import annotations

import os
from pathlib import Path

from halftunnel_vpn.host.record.journal import SUFFIX
from halftunnel_vpn.host.record.lock import holder_of
from halftunnel_vpn.host.record.policy_file import FILE


def leftovers(state_dir: Path) -> list[str]:
    """Return what was left, as sentences that say what to do; empty while a process manages this host.

    If the user may not read ``state_dir``, report what the routing rules show, which any user may read.
    """
    try:
        names = sorted(os.listdir(state_dir))
        if holder_of(state_dir) is not None:
            return []
    except FileNotFoundError:
        return []
    except PermissionError:
        return _from_rules()
    found = [
        f"the tunnel {name.removesuffix(SUFFIX)} did not end cleanly; run `htvpn repair` as root"
        for name in names
        if name.endswith(SUFFIX)
    ]
    if FILE in names:
        found.append("a kill switch is in place; run `htvpn up`, or `htvpn repair --lift` as root to lift it")
    return found


def has_records(state_dir: Path) -> bool:
    """Return whether a tunnel or a policy is recorded in ``state_dir``, by this process or an earlier one."""
    return (state_dir / FILE).exists() or any(state_dir.glob(f"*{SUFFIX}"))


def _from_rules() -> list[str]:
    from halftunnel_vpn.host.kernel.netlink import with_kernel

    if not with_kernel(lambda kernel: kernel.rules()):
        return []
    return ["routing rules of a tunnel or a kill switch are in place; run `htvpn status` as root to see more"]
