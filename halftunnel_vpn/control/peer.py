"""The process at the other end of a Unix socket, as the kernel reports it (unix(7), socket(7))."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from typing import NamedTuple

GROUP = "halftunnel"
"""Members of this group have root's rights on the control socket."""

EXIT_GROUP = "halftunnel-exit"
"""Members of this group may use the control socket of an exit, and nothing of a client on the same host."""

_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("=iII")
_MOST_GROUPS = 256
"""The most bytes that socket.getsockopt accepts."""


class Peer(NamedTuple):
    """The credentials of the connecting process at the time of its connect."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]
    """Supplementary groups."""


def peer_of(connection: socket.socket) -> Peer | None:
    """Return who connected; None if the kernel does not know (not a Unix socket)."""
    if connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid, gid, _groups_of(connection, uid, gid))


def _groups_of(connection: socket.socket, uid: int, gid: int) -> frozenset[int]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError:
        # More groups than Python accepts (ERANGE), or a kernel before 4.13: use the account's groups.
        try:
            return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
        except (KeyError, OSError):
            return frozenset()
    return frozenset(struct.unpack(f"={len(raw) // 4}I", raw))


def group_id(name: str = GROUP) -> int | None:
    """Return the number of the group ``name``; None if this host has no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def may_control(peer: Peer | None, group: str = GROUP) -> bool:
    """Return whether ``peer`` is root, the user of this process, or in ``group``."""
    if peer is None:
        return False
    if peer.uid in (0, os.geteuid()):
        return True
    number = group_id(group)
    return number is not None and (peer.gid == number or number in peer.groups)
