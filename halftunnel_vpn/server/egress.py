"""Egress policy: the addresses to which the exit opens sockets for its clients, and those it refuses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from halftunnel_vpn.inet.special_purpose import DENIED_BY_DEFAULT, Address, Network, embedded_ipv4, in_any

MAX_REMEMBERED = 4096
"""Cached decisions, by address."""


class EgressPolicy:
    """Decides whether a client may reach an address.

    ``deny`` has precedence over ``allow``, and ``allow`` over everything else. The exit's own addresses are
    denied unless allowed. An address without a rule is permitted unless DENIED_BY_DEFAULT contains it in any
    notation. For an IPv6 address that embeds an IPv4 address, the strictest decision counts.
    """

    def __init__(
        self,
        *,
        allow: Iterable[Network] = (),
        deny: Iterable[Network] = (),
        nat64: Iterable[ipaddress.IPv6Network] = (),
    ) -> None:
        """``nat64`` are the prefixes of the translators of the exit's network (RFC 6052 section 2.2)."""
        self._own: frozenset[Address] | None = frozenset()
        self._remembered: dict[bytes, bool] = {}
        self.set_rules(allow=allow, deny=deny, nat64=nat64)

    def set_rules(
        self,
        *,
        allow: Iterable[Network] = (),
        deny: Iterable[Network] = (),
        nat64: Iterable[ipaddress.IPv6Network] = (),
    ) -> None:
        """Use these rules from now on."""
        self._allow = tuple(allow)
        self._deny = tuple(deny)
        self._nat64 = tuple(nat64)
        self._remembered.clear()

    def set_own_addresses(self, own: frozenset[Address] | None) -> None:
        """Set the exit's own addresses. None means unknown; then only ``allow`` permits an address."""
        if own != self._own:
            self._own = own
            self._remembered.clear()

    def permits(self, address: bytes) -> bool:
        """Return whether a socket may be opened to ``address`` (4 or 16 bytes)."""
        decision = self._remembered.get(address)
        if decision is None:
            decision = self._decide(ipaddress.ip_address(address))
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[address] = decision
        return decision

    def _decide(self, address: Address) -> bool:
        if not self._decide_one(address):
            return False
        if isinstance(address, ipaddress.IPv6Address):
            # An allowed IPv6 network does not allow the IPv4 addresses embedded in it.
            return int(address) < 2 or all(
                self._decide_one(inner) for inner in embedded_ipv4(address, self._nat64)
            )
        return True

    def _decide_one(self, address: Address) -> bool:
        if in_any(address, self._deny):
            return False
        if in_any(address, self._allow):
            return True
        if self._own is None:
            return False  # it might be one of the exit's own addresses
        return address not in self._own and not in_any(address, DENIED_BY_DEFAULT)
