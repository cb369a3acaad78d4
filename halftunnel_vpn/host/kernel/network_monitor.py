"""Tells when the ways out of this host may have changed, and asks the kernel what they are now.

The kernel's messages only wake; what counts is read afresh then. So none can be missed for good, and a
change that changes nothing for us (our own device, a container's bridge, an IPv6 address that rotates for
privacy, RFC 8981) is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.netlink import Kernel, with_kernel
from halftunnel_vpn.host.kernel.netlink_events import NetlinkEvents

SUSPEND_JUMP: Final = 2.0
"""Seconds by which the clock that counts sleep must outrun the other one to mean that the host slept."""

# RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE of linux/rtnetlink.h
_GROUPS: Final = (1, 5, 7, 9, 11)
_NETLINK_ROUTE: Final = 0


@dataclass(frozen=True, slots=True)
class Way:
    """How packets with our mark reach one address; ``addresses``: those of the device that do not rotate."""

    device: str
    gateway: str
    addresses: frozenset[str]


Ways = dict[str, Way | None]
"""By destination; None where there is no way."""


def ways(destinations: Iterable[str], mark: int) -> Ways:
    """The ways to some addresses now, for packets with ``mark``; blocks for some milliseconds."""
    wanted = tuple(destinations)

    def ask(kernel: Kernel) -> Ways:
        found: Ways = {}
        for destination in wanted:
            step = kernel.next_step(destination, mark)
            if step is None:
                found[destination] = None
                continue
            device, gateway = step
            version = 6 if ":" in destination else 4
            found[destination] = Way(device, gateway, kernel.lasting_addresses(device, version))
        return found

    return with_kernel(ask)


def changed(before: Mapping[str, Way | None], now: Mapping[str, Way | None]) -> bool:
    """Whether a destination that both know is reached otherwise now. One that cannot be reached any more is
    no change: there is nothing to move to."""
    return any(way is not None and way != before[place] for place, way in now.items() if place in before)


class NetworkMonitor:
    """A netlink socket in this network namespace; ``fd`` is readable when something has changed.

    Raises HostError when there is no such socket to be had.
    """

    def __init__(self) -> None:
        try:
            self._events = NetlinkEvents(_NETLINK_ROUTE, _GROUPS)
        except OSError as error:
            raise HostError(f"Changes of the network cannot be watched ({error.strerror}).") from error
        self.fd = self._events.fd

    def drain(self) -> bool:
        """Discard all events that have come; return whether there was one. Never wait."""
        return len(list(self._events.drain())) > 0

    def close(self) -> None:
        """Close the socket."""
        self._events.close()


class SuspendWatch:
    """Notices that the host was asleep: CLOCK_BOOTTIME counts that time, CLOCK_MONOTONIC does not."""

    def __init__(
        self,
        boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        monotonic: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_MONOTONIC),
    ) -> None:
        self._boottime = boottime
        self._monotonic = monotonic
        self._apart = boottime() - monotonic()

    def slept(self) -> float:
        """Seconds that the host has slept since the last question, 0.0 when it has not."""
        apart = self._boottime() - self._monotonic()
        jump, self._apart = apart - self._apart, apart
        return jump if jump >= SUSPEND_JUMP else 0.0
