"""What the tunnel wants the host to look like, as data: enough to make it so, to check it and to undo it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

DEFAULT_DEVICE: Final = "htvpn0"
DEFAULT_TABLE: Final = 18516
"""The one route table that is ours (0x4854, the magic of the wire format)."""
DEFAULT_MARK: Final = 0x4854
"""The mark (SO_MARK) on our own sockets: what carries it goes around the tunnel."""
DEFAULT_RULE_PRIORITY: Final = 18516
"""Our routing rules stand from here on; the host's own `lookup main` is at 32766."""
RULE_SPAN: Final = 395
"""Our rules have priorities from the base up to base + 394."""
MAX_RULE_PRIORITY: Final = 32766 - RULE_SPAN
UPLINK_MARKS: Final = 4096
"""Marks of uplinks, by the number of the device modulo this."""
MARK_SPAN: Final = 4 + UPLINK_MARKS
"""Our marks are ``mark`` (legs), +1 (excluded programs), +2 (chosen programs), +3 and above (replies)."""
DEFAULT_ROUTES: Final = ("0.0.0.0/0", "::/0")

LAN_NETWORKS: Final = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # RFC 1918
    "169.254.0.0/16", "fe80::/10",  # link-local: RFC 3927, RFC 4291
    "fc00::/7",  # unique local: RFC 4193
    "224.0.0.0/24", "239.0.0.0/8", "255.255.255.255/32",  # multicast that routers keep in: RFC 5771, RFC 2365
    "ff01::/16", "ff02::/16", "ff03::/16", "ff04::/16", "ff05::/16",  # RFC 4291, section 2.7
)  # fmt: skip
"""Networks that are never the Internet's: what "the LAN" means where nobody says it more exactly."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, kw_only=True, slots=True)
class HostState:
    """The wanted state of one host.

    ``tun`` names a device that is open already; ``mtu`` is in bytes. ``addresses`` are the device's, with
    prefix length (``10.72.84.2/32``). ``include`` are the networks that go into the tunnel, ``exclude``
    those that stay out of it; ``0.0.0.0/0`` and ``::/0`` in ``include`` mean the whole family. ``dns`` are
    the addresses for the host's resolver configuration, None to leave that alone. ``ipv6`` says whether the
    exit has IPv6: without it, what ``include`` covers of IPv6 is unreachable rather than leaked.
    ``intercept_dns`` takes everything to port 53 into the tunnel, whatever its address.

    ``lan``: networks of :data:`LAN_NETWORKS` that ``main`` has a route to, other than its default, stay out
    as well. ``only``: nothing goes into the tunnel but what has ``only_mark``. ``gateway`` are devices behind
    which there are hosts that this one routes into the tunnel. ``resolvers`` are addresses inside the tunnel
    that answer DNS, for whom cannot be pointed there by ``dns``. ``inbound``: replies to connections from
    outside leave outside the tunnel (see ``host/kernel/inbound.py``).

    An excluded network stays out even where a part of it is included.

    Raises ValueError for an address or network that cannot be read, or a rule priority out of range.
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
        """The mark of the sockets of programs that go into the tunnel when only programs do."""
        return self.mark + 2

    @property
    def inbound_mark(self) -> int:
        """The mark of replies to connections from outside."""
        return inbound_mark(self.mark)

    def interfaces(self) -> list[Interface]:
        """The device's addresses; those of IPv6 only when the exit has it."""
        parsed = [ipaddress.ip_interface(text) for text in self.addresses]
        return [interface for interface in parsed if interface.version == 4 or self.ipv6]

    def included(self, version: int) -> list[Network]:
        """The networks of one IP version (4 or 6) that go into the tunnel."""
        return _of_version(self.include, version)

    def excluded(self, version: int) -> list[Network]:
        """The networks of one IP version (4 or 6) that stay out of the tunnel."""
        return _of_version(self.exclude, version)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostState:
        """Raises TypeError for an unknown or missing field, ValueError for a bad value."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**fields)


def _of_version(texts: tuple[str, ...], version: int) -> list[Network]:
    networks = dict.fromkeys(ipaddress.ip_network(text) for text in texts)
    return [network for network in networks if network.version == version]


def excluded_mark(mark: int) -> int:
    """The mark of excluded programs' sockets, where our own have ``mark``."""
    return mark + 1


def inbound_mark(mark: int) -> int:
    """The mark of replies to connections from outside, where our own sockets have ``mark``."""
    return mark + 3


def uplink_mark(mark: int, index: int) -> int:
    """The mark of replies that must leave by the device ``index``, where our own sockets have ``mark``."""
    return mark + 4 + index % UPLINK_MARKS
