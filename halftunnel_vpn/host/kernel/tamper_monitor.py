"""Wakes us when something changes our objects in the kernel: nft table, routing rules, routes, links.

The kernel's messages only wake the caller, who then reads the present state (``Host.differences``).
See netlink(7), rtnetlink(7) and linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import struct
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.netlink_events import NetlinkEvents
from halftunnel_vpn.host.kernel.nft import TABLE

_NETLINK_ROUTE: Final = 0
_NETLINK_NETFILTER: Final = 12
_NFTABLES_GROUP: Final = 7
# RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE
_ROUTE_GROUPS: Final = (1, 5, 7, 8, 9, 11, 19)
# RTM_NEWLINK (down?), _DELLINK, _DELADDR, _DELROUTE, _NEWRULE, _DELRULE
_RELEVANT: Final = frozenset({16, 17, 21, 25, 32, 33})
_HEADER: Final = struct.Struct("=IHHII")


class KernelChanges:
    """Two netlink sockets in this network namespace. Raises HostError when none can be opened."""

    def __init__(self) -> None:
        self._sources: list[NetlinkEvents] = []
        try:
            self._sources.append(NetlinkEvents(_NETLINK_NETFILTER, (_NFTABLES_GROUP,)))
            self._sources.append(NetlinkEvents(_NETLINK_ROUTE, _ROUTE_GROUPS))
        except OSError as error:
            self.close()
            raise HostError(f"Changes of the host cannot be watched ({error.strerror}).") from error
        self._table = TABLE.split()[-1].encode() + b"\0"

    @property
    def descriptors(self) -> list[int]:
        """The sockets. They are readable when the kernel has announced a change."""
        return [source.fd for source in self._sources]

    def drain(self) -> bool:
        """Read all events that have arrived; return whether one may concern us. Never block."""
        concerns = False
        for source in self._sources:
            is_nft = source is self._sources[0]
            for data in source.drain():
                concerns = concerns or data is None or self._concerns(is_nft, data)
        return concerns

    def close(self) -> None:
        """Close the sockets."""
        for source in self._sources:
            source.close()
        self._sources.clear()

    def _concerns(self, is_nft: bool, data: bytes) -> bool:
        if is_nft:
            return self._table in data
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            if kind in _RELEVANT:
                return True
            offset += max(_HEADER.size, (length + 3) & ~3)
        return False
