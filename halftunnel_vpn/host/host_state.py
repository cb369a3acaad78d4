"""The wanted state of the host as data: enough to apply it, to check it and to undo it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

DEFAULT_DEVICE: Final = "htvpn0"
DEFAULT_TABLE: Final = 18516
"""The one route table that is ours (0x4854, the magic of the wire format)."""
DEFAULT_MARK: Final = 0x4854
"""The mark (SO_MARK) of our own sockets. Packets with it bypass the tunnel."""
DEFAULT_RULE_PRIORITY: Final = 18516
"""The base priority of our routing rules. The host's own `lookup main` has 32766."""
RULE_SPAN: Final = 395
"""Our rules have the priorities from the base to the base + 394."""
MAX_RULE_PRIORITY: Final = 32766 - RULE_SPAN
UPLINK_MARKS: Final = 4096
"""The mark of an uplink is derived from the device number modulo this.

Our marks are ``mark`` (legs), +1 (excluded programs), +2 (chosen programs), +3 and above (replies)."""
DEFAULT_ROUTES: Final = ("0.0.0.0/0", "::/0")

LAN_NETWORKS: Final = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # RFC 1918
    "169.254.0.0/16", "fe80::/10",  # link-local: RFC 3927, RFC 4291
    "fc00::/7",  # unique local: RFC 4193
    # Multicast and broadcast that routers do not forward.
    "224.0.0.0/24", "239.0.0.0/8", "255.255.255.255/32",
    "ff01::/16", "ff02::/16", "ff03::/16", "ff04::/16", "ff05::/16",  # RFC 4291, section 2.7
)  # fmt: skip
"""Networks that are never part of the Internet: the default meaning of "the LAN"."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, kw_only=True, slots=True)
class HostState:
    """The wanted state of one host.

    ``tun`` names a device that is open already; ``mtu`` is in bytes. ``addresses`` are those of the device,
    with prefix length (``10.72.84.2/32``). ``include`` are the networks that use the tunnel, ``exclude``
    those that do not; ``0.0.0.0/0`` and ``::/0`` in ``include`` mean the whole family. ``dns`` are the
    servers for the host's resolver configuration; None leaves that unchanged. ``ipv6`` is True if the exit
    has IPv6. Without it, the IPv6 networks of ``include`` are unreachable instead of leaking.
    ``intercept_dns`` sends everything to port 53 into the tunnel, whatever its address.

    ``lan``: networks of :data:`LAN_NETWORKS` to which ``main`` has a route, other than its default route,
    also stay outside. ``only``: only packets with ``only_mark`` use the tunnel. ``gateway`` are devices with
    hosts behind them that this host routes into the tunnel. ``resolvers`` are addresses inside the tunnel
    that answer DNS, for hosts and programs that ``dns`` cannot configure. ``inbound``: replies to connections
    from outside leave outside the tunnel (see ``host/kernel/inbound.py``).

    An excluded network stays outside even if a part of it is included.

    Raises ValueError for an invalid address or network, or a rule priority out of range.
    """

    addresses: tuple[str, ...]
    tun: str = DEFAULT_DEVICE
    mtu: int = 1500
    table: int = DEFAULT_TABLE
    mark: int = DEFAULT_MARK
    rule_priority: int = DEFAULT_RULE_PRIORITY
    include: tuple[str, ...] = DEFAULT_ROUTES
    exclude: tuple[str, ...] = ()
    dns: tuple[str, ...] | None = None
    ipv6: bool = True
    intercept_dns: bool = True
    lan: bool = True
    only: bool = False
    gateway: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    inbound: bool = False

    def __post_init__(self) -> None:
        for text in self.addresses:
            ipaddress.ip_interface(text)
        for text in (*self.include, *self.exclude):
            ipaddress.ip_network(text)
        for text in self.dns or ():
            ipaddress.ip_address(text)
        if not 0 < self.rule_priority <= MAX_RULE_PRIORITY:
            raise ValueError(f"rule_priority {self.rule_priority} is not from 1 to {MAX_RULE_PRIORITY}")

    @property
    def excluded_mark(self) -> int:
        """The mark of excluded programs' sockets."""
        return excluded_mark(self.mark)

    @property
    def only_mark(self) -> int:
        """The mark of the sockets of chosen programs, if only these use the tunnel."""
        return self.mark + 2

    @property
    def inbound_mark(self) -> int:
        """The mark of replies to connections from outside."""
        return inbound_mark(self.mark)

    def interfaces(self) -> list[Interface]:
        """Return the device's addresses. Those of IPv6 are left out if the exit has no IPv6."""
        parsed = [ipaddress.ip_interface(text) for text in self.addresses]
        return [interface for interface in parsed if interface.version == 4 or self.ipv6]

    def included(self, version: int) -> list[Network]:
        """Return the networks of one IP version (4 or 6) that use the tunnel."""
        return _of_version(self.include, version)

    def excluded(self, version: int) -> list[Network]:
        """Return the networks of one IP version (4 or 6) that stay outside the tunnel."""
        return _of_version(self.exclude, version)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON data. :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostState:
        """Read what :meth:`as_dict` returned. Raises TypeError (unknown or missing field), ValueError."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**fields)


def _of_version(texts: tuple[str, ...], version: int) -> list[Network]:
    networks = dict.fromkeys(ipaddress.ip_network(text) for text in texts)
    return [network for network in networks if network.version == version]


def excluded_mark(mark: int) -> int:
    """Return the mark of excluded programs' sockets, if our own sockets have ``mark``."""
    return mark + 1


def inbound_mark(mark: int) -> int:
    """Return the mark of replies to connections from outside, if our own sockets have ``mark``."""
    return mark + 3


def uplink_mark(mark: int, index: int) -> int:
    """Return the mark of replies that must leave by device ``index``, if our own sockets have ``mark``."""
    return mark + 4 + index % UPLINK_MARKS
