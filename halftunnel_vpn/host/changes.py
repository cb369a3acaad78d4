"""Wakes us when somebody touches what is ours in the kernel: our nft table, routing rules, routes, links.

The kernel's messages only wake; whoever is woken reads afresh what is there (``HostNetwork.verify``).
See netlink(7), rtnetlink(7) and linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.nft import TABLE

MESSAGE_SIZE: Final = 65536
"""Bytes read at one time: more than the kernel puts into one datagram."""

_NETLINK_ROUTE: Final = 0
_NETLINK_NETFILTER: Final = 12
_ADD_MEMBERSHIP: Final = 1
_SOL_NETLINK: Final = 270
_NFTABLES_GROUP: Final = 7
# RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE
_ROUTE_GROUPS: Final = (1, 5, 7, 8, 9, 11, 19)
# RTM_NEWLINK (down?), _DELLINK, _DELADDR, _DELROUTE, _NEWRULE, _DELRULE
_TELLING: Final = frozenset({16, 17, 21, 25, 32, 33})
_HEADER: Final = struct.Struct("=IHHII")


class KernelChanges:
    """Two netlink sockets in this network namespace. Raises HostError when there are none to be had."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        try:
            self._open(_NETLINK_NETFILTER, (_NFTABLES_GROUP,))
            self._open(_NETLINK_ROUTE, _ROUTE_GROUPS)
        except OSError as error:
            self.close()
            raise HostError(f"Changes of the host cannot be watched ({error.strerror}).") from error
        self._table = TABLE.split()[-1].encode() + b"\0"

    @property
    def descriptors(self) -> list[int]:
        """Readable when the kernel has something to say."""
        return [opened.fileno() for opened in self._sockets]

    def drain(self) -> bool:
        """Read what has come; whether it may concern us. Never waits."""
        concerns = False
        for opened in self._sockets:
            while True:
                try:
                    data = opened.recv(MESSAGE_SIZE)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    concerns = True  # there was more than the socket holds
                    continue
                concerns = concerns or self._concerns(opened is self._sockets[0], data)
        return concerns

    def close(self) -> None:
        """Let go of the sockets."""
        for opened in self._sockets:
            with contextlib.suppress(OSError):
                opened.close()
        self._sockets.clear()

    def _open(self, family: int, groups: tuple[int, ...]) -> None:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, family)
        self._sockets.append(opened)
        opened.bind((0, 0))
        for group in groups:
            opened.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def _concerns(self, is_nft: bool, data: bytes) -> bool:
        if is_nft:
            return self._table in data
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            if kind in _TELLING:
                return True
            offset += max(_HEADER.size, (length + 3) & ~3)
        return False
