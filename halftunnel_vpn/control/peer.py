"""Who is at the other end of a Unix socket, as the kernel says (unix(7), socket(7))."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from typing import NamedTuple

GROUP = "halftunnel"
"""Members of this group may do what root may on the control socket."""

_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("=iII")
_MOST_GROUPS = 256
"""socket.getsockopt takes 1024 bytes at most."""


class Peer(NamedTuple):
    """Credentials of the process that connected, at the moment it did."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]
    """Supplementary groups."""


def peer_of(connection: socket.socket) -> Peer | None:
    """Who connected; None where the kernel does not know (no Unix socket)."""
    if connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid, gid, _groups_of(connection, uid, gid))


def _groups_of(connection: socket.socket, uid: int, gid: int) -> frozenset[int]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError:
        # More groups than Python can take (ERANGE), or a kernel before 4.13: what the account's groups are.
        try:
            return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
        except (KeyError, OSError):
            return frozenset()
    return frozenset(struct.unpack(f"={len(raw) // 4}I", raw))


def group_id(name: str = GROUP) -> int | None:
    """Number of the group ``name``; None when this host has none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def may_control(peer: Peer | None, group: str = GROUP) -> bool:
    """Whether ``peer`` is root, the user this process runs as, or in ``group``."""
    if peer is None:
        return False
    if peer.uid in (0, os.geteuid()):
        return True
    number = group_id(group)
    return number is not None and (peer.gid == number or number in peer.groups)
