"""Which sockets may have a mark that leads around the tunnel: our process's, and listed programs'.

Since Linux 5.17 any program with CAP_NET_RAW may mark its sockets, also every container on the host's
network. So a packet keeps its mark only if its socket belongs to our user, or to the control group of
excluded programs. A container that runs as root has the same user number as we. So if a service manager has
given us a control group of our own, the socket must belong to that one too. All other packets lose the mark
and are routed again, into the tunnel. See nft(8), SOCKET EXPRESSION.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.host_state import excluded_mark
from halftunnel_vpn.host.kernel import nft
from halftunnel_vpn.host.kernel.cgroups import EXCLUDED, group_of
from halftunnel_vpn.host.kernel.nft import Chain

NFT_CGROUPS: Final = Path("/sys/fs/cgroup")
"""The directory in which nft looks up the control groups that a rule names."""

LIMITED_BEFORE: Final = (5, 17)
"""Before this version of Linux a mark needs CAP_NET_ADMIN, and nft may not support control groups."""

SERVICE_PID: Final = "SYSTEMD_EXEC_PID"
"""The variable in which systemd gives a service's main process its own number (systemd.exec(5))."""

_OWN_GROUP: Final = Path("/proc/self/cgroup")


def chain(mark: int) -> Chain:
    """Return the chain that removes our marks from all other sockets. The first listed program changes it."""
    excluded = excluded_mark(mark)
    programs = _excluded_programs()
    rules = [
        # A closed connection has no owner, but the kernel still sends its last segments.
        f"meta l4proto tcp ct mark {mark:#x} return",
        f"meta mark {mark:#x} meta skuid {os.geteuid()} {_own_service()}return",
    ]
    if programs is not None:
        rules.append(f"meta mark {excluded:#x} {programs}return")
    rules.append(f"meta mark {{ {mark:#x}, {excluded:#x} }} meta mark set 0")
    return Chain("mark_owners", "output priority mangle - 1", tuple(rules), type="route")


def own_group(text: str, environment: dict[str, str], pid: int) -> str | None:
    """Return the path of our control group, from /proc/self/cgroup; None if others may be in it.

    Only the main process of a service has a group of its own. That of a session or a container is shared.
    """
    if environment.get(SERVICE_PID) != str(pid):
        return None
    for line in text.splitlines():
        number, _, path = line.partition("::")
        if number == "0" and path.endswith(".service") and '"' not in path:
            return path.lstrip("/")
    return None


def _own_service() -> str:
    """Return an nft match for our own sockets; "" if they are identified by the user number alone."""
    try:
        group = own_group(_OWN_GROUP.read_text(), dict(os.environ), os.getpid())
    except OSError:
        return ""
    if group is None or _kernel_version() < LIMITED_BEFORE or not (NFT_CGROUPS / group).is_dir():
        return ""
    match = _match(group)
    return match if _is_taken(match) else ""


def _excluded_programs() -> str | None:
    """Return an nft match for their sockets; "" if only the mark identifies them, None if none is listed."""
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
    """Return how nft names the sockets of a control group. The level counts from the root group."""
    return f'socket cgroupv2 level {len(Path(group).parts)} "{group}" '


@functools.cache
def _is_taken(match: str) -> bool:
    """Return whether nft and the kernel support such a match. Without it our legs would lose their mark."""
    return nft.accepts(f"{match}accept")


def _kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
