"""Who may have a mark that leads around the tunnel: our own process, and the programs that are listed.

Since Linux 5.17 any program with CAP_NET_RAW may mark its sockets: every container on the host's network may.
So a packet keeps its mark only if its socket is our user's, or is of the control group of excluded programs.
From any other it is taken, and the packet is routed again: into the tunnel. A TCP connection that has once
passed keeps its mark until it is over. See nft(8), SOCKET EXPRESSION.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.nft import Chain
from halftunnel_vpn.host.programs import EXCLUDED, group_of
from halftunnel_vpn.host.state import excluded_mark

NFT_CGROUPS: Final = Path("/sys/fs/cgroup")
"""Where nft looks for the control groups that a rule names."""

LIMITED_BEFORE: Final = (5, 17)
"""Before this version of Linux a mark takes CAP_NET_ADMIN, and nft may not know control groups."""

_LEVEL: Final = 2  # of the list's group below the root of control groups


def chain(mark: int) -> Chain:
    """Return the chain that takes our marks from all others; it changes when programs are first listed."""
    excluded = excluded_mark(mark)
    programs = _excluded_programs()
    rules = [
        # A closed connection has no owner any more, while the kernel still sends its end.
        f"meta l4proto tcp ct mark {mark:#x} return",
        f"meta mark {mark:#x} meta skuid {os.geteuid()} return",
    ]
    if programs is not None:
        rules.append(f"meta mark {excluded:#x} {programs}return")
    rules.append(f"meta mark {{ {mark:#x}, {excluded:#x} }} meta mark set 0")
    return Chain("mark_owners", "output priority mangle - 1", tuple(rules), type="route")


def _excluded_programs() -> str | None:
    """Return a match for their sockets; "" where only the mark tells, None if none are listed."""
    try:
        group = group_of(EXCLUDED)
    except HostError:
        return None
    if not group.is_dir():
        return None
    if _kernel_version() < LIMITED_BEFORE or not group.is_relative_to(NFT_CGROUPS):
        return ""
    return f'socket cgroupv2 level {_LEVEL} "{group.relative_to(NFT_CGROUPS)}" '


def _kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
