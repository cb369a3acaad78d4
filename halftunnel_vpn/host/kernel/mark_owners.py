"""Who may have a mark that leads around the tunnel: our own process, and the programs that are listed.

Since Linux 5.17 any program with CAP_NET_RAW may mark its sockets: every container on the host's network may.
So a packet keeps its mark only if its socket is our user's, or is of the control group of excluded programs.
A container that runs as root shares our user's number; so where a service manager has given us a control
group of our own, the socket must be of that too. From any other the mark is taken, and the packet is routed
again: into the tunnel. See nft(8), SOCKET EXPRESSION.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel import nft
from halftunnel_vpn.host.kernel.cgroups import EXCLUDED, group_of
from halftunnel_vpn.host.kernel.nft import Chain
from halftunnel_vpn.host.state import excluded_mark

NFT_CGROUPS: Final = Path("/sys/fs/cgroup")
"""Where nft looks for the control groups that a rule names."""

LIMITED_BEFORE: Final = (5, 17)
"""Before this version of Linux a mark takes CAP_NET_ADMIN, and nft may not know control groups."""

SERVICE_PID: Final = "SYSTEMD_EXEC_PID"
"""Variable by which systemd tells the main process of a service its own number (systemd.exec(5))."""

_OWN_GROUP: Final = Path("/proc/self/cgroup")


def chain(mark: int) -> Chain:
    """Return the chain that takes our marks from all others; it changes when programs are first listed."""
    excluded = excluded_mark(mark)
    programs = _excluded_programs()
    rules = [
        # A closed connection has no owner any more, while the kernel still sends its end.
        f"meta l4proto tcp ct mark {mark:#x} return",
        f"meta mark {mark:#x} meta skuid {os.geteuid()} {_own_service()}return",
    ]
    if programs is not None:
        rules.append(f"meta mark {excluded:#x} {programs}return")
    rules.append(f"meta mark {{ {mark:#x}, {excluded:#x} }} meta mark set 0")
    return Chain("mark_owners", "output priority mangle - 1", tuple(rules), type="route")


def own_group(text: str, environment: dict[str, str], pid: int) -> str | None:
    """Return the path of our control group, from /proc/self/cgroup; None where others may be in it.

    Only a service's main process has one of its own: a session or a container is shared.
    """
    if environment.get(SERVICE_PID) != str(pid):
        return None
    for line in text.splitlines():
        number, _, path = line.partition("::")
        if number == "0" and path.endswith(".service") and '"' not in path:
            return path.lstrip("/")
    return None


def _own_service() -> str:
    """Return a match for our own sockets; "" where only the user's number tells."""
    try:
        group = own_group(_OWN_GROUP.read_text(), dict(os.environ), os.getpid())
    except OSError:
        return ""
    if group is None or _kernel_version() < LIMITED_BEFORE or not (NFT_CGROUPS / group).is_dir():
        return ""
    match = _match(group)
    return match if _is_taken(match) else ""


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
    return _match(str(group.relative_to(NFT_CGROUPS)))


def _match(group: str) -> str:
    """Return how nft names the sockets of a control group; the level counts from the root of all groups."""
    return f'socket cgroupv2 level {len(Path(group).parts)} "{group}" '


@functools.cache
def _is_taken(match: str) -> bool:
    """Return whether nft and the kernel know such a match: without it our legs would lose their mark."""
    return nft.accepts(f"{match}accept")


def _kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
