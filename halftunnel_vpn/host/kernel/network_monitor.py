"""Reports that the host's routes to its exits may have changed, and reads the present ones from the kernel.

The kernel's messages only wake the caller, who then reads the present state. So no change is missed for long.
A change that does not concern us is not reported: our own device, a container's bridge, or a temporary IPv6
address (RFC 8981).
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
"""Seconds by which CLOCK_BOOTTIME must outrun CLOCK_MONOTONIC to show that the host was suspended."""

# RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE of linux/rtnetlink.h
_GROUPS: Final = (1, 5, 7, 9, 11)
_NETLINK_ROUTE: Final = 0


@dataclass(frozen=True, slots=True)
class Way:
    """The device and gateway towards one address. ``addresses`` are the device's lasting addresses."""

    device: str
    gateway: str
    addresses: frozenset[str]


Ways = dict[str, Way | None]
"""By destination; None if there is no route."""


def ways(destinations: Iterable[str], mark: int) -> Ways:
    """Return the present ways to some addresses, for packets with ``mark``. Blocks for some milliseconds."""
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
    """Return whether a destination in both mappings has another way now.

    A destination that has become unreachable is no change, because there is no new way to move to."""
    return any(way is not None and way != before[place] for place, way in now.items() if place in before)


class NetworkMonitor:
    """A netlink socket in this network namespace. ``fd`` is readable when something has changed.

    Raises HostError when no such socket can be opened.
    """

    def __init__(self) -> None:
        try:
            self._events = NetlinkEvents(_NETLINK_ROUTE, _GROUPS)
        except OSError as error:
            raise HostError(f"Changes of the network cannot be watched ({error.strerror}).") from error
        self.fd = self._events.fd

    def drain(self) -> bool:
        """Discard all events that have arrived; return whether there was any. Never block."""
        return len(list(self._events.drain())) > 0

    def close(self) -> None:
        """Close the socket."""
        self._events.close()


class SuspendWatch:
    """Detects that the host was suspended: CLOCK_BOOTTIME counts that time, CLOCK_MONOTONIC does not."""

    def __init__(
        self,
        boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        monotonic: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_MONOTONIC),
    ) -> None:
        self._boottime = boottime
        self._monotonic = monotonic
        self._apart = boottime() - monotonic()

    def slept(self) -> float:
        """Return the seconds of suspension since the last call; 0.0 if there was none."""
        apart = self._boottime() - self._monotonic()
        jump, self._apart = apart - self._apart, apart
        return jump if jump >= SUSPEND_JUMP else 0.0
