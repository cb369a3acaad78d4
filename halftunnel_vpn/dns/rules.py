"""Names that are not simply asked about through the tunnel."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from halftunnel_vpn.dns.dns_config import DnsServiceConfig, Server, normal_name
from halftunnel_vpn.dns.message import LocalRecord, Query, local_answer, minimal_any, negative_authority
from halftunnel_vpn.dns.message_reader import CLASS_IN, Rcode, RecordType

Value = TypeVar("Value")

LOCALHOST_ADDRESSES = ("127.0.0.1", "::1")
ZERO_ADDRESSES = ("0.0.0.0", "::")  # an answer, nothing is bound  # nosec B104

DENIED_DOMAINS = ("use-application-dns.net", "invalid", "onion")
"""Domains that do not exist for anyone behind us: the first makes Firefox use the host's resolver
rather than to its own DNS over HTTPS; RFC 6761 section 6.4 and RFC 7686 section 2 keep the others at home."""

EMPTY_DOMAINS = ("resolver.arpa",)
"""Domains that exist and are empty: a forwarder must not report the designated resolvers of its own resolver
(RFC 9462 section 6.4)."""

Records = Mapping[int, tuple[LocalRecord, ...]]


class SuffixTable(Generic[Value]):
    """Values of domains, which hold for all names below them too; the longest domain that matches decides."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = {normal_name(domain): value for domain, value in values.items()}

    def find(self, name: str) -> Value | None:
        """Return the value for ``name`` (lower case, no last dot)."""
        values = self._values
        if not values:
            return None
        while name not in values:
            if not name:
                return None
            name = name.partition(".")[2]
        return values[name]


class Rules:
    """The rules of one configuration. ``ipv6`` may change: without it, AAAA is answered empty."""

    def __init__(self, config: DnsServiceConfig) -> None:
        ttl = config.local_ttl
        self.ipv6 = config.ipv6
        self._any = (minimal_any(ttl),)
        self._nothing = (negative_authority(ttl),)
        self._hosts = {
            normal_name(name): _address_records(addresses, ttl) for name, addresses in config.hosts.items()
        }
        # None stands for a name that does not exist, a mapping for what there is of each type.
        local: dict[str, Records | None] = {}
        blocked = None if config.block_answer == "nxdomain" else _address_records(ZERO_ADDRESSES, ttl)
        local.update((domain, blocked) for domain in config.block)
        local.update((domain, None) for domain in DENIED_DOMAINS)
        local.update((domain, {}) for domain in EMPTY_DOMAINS)
        local["localhost"] = _address_records(LOCALHOST_ADDRESSES, ttl)
        self._local = SuffixTable({domain: (records,) for domain, records in local.items()})
        self._split = SuffixTable({domain: tuple(servers) for domain, servers in config.split.items()})
        self._fake_exclude = SuffixTable(dict.fromkeys(config.fake_exclude, True))

    def answer(self, query: Query, *, stream: bool) -> bytes | None:
        """Return the reply to ``query`` if no resolver is to be asked; None if one is.

        Other classes and whole zones are refused, ANY is answered with the minimum; then hosts decide, then
        domains that are blocked or stay at home, then split domains, which a resolver answers.
        """
        type_ = query.type
        if query.class_ != CLASS_IN or type_ in (RecordType.AXFR, RecordType.IXFR, RecordType.OPT):
            return local_answer(query, Rcode.REFUSED, stream=stream)
        if type_ == RecordType.ANY:
            return local_answer(query, answers=self._any, stream=stream)
        name = query.name
        hosts = self._hosts.get(name)
        if hosts is not None:
            return self._from_records(query, hosts, stream)
        local = self._local.find(name)
        if local is not None:
            (records,) = local
            if records is not None:
                return self._from_records(query, records, stream)
            return local_answer(query, Rcode.NXDOMAIN, authorities=self._nothing, stream=stream)
        if type_ == RecordType.AAAA and not self.ipv6 and self._split.find(name) is None:
            return local_answer(query, authorities=self._nothing, stream=stream)
        return None

    def stays_here(self, name: str) -> bool:
        """Return whether no server at all is to be asked about ``name``."""
        return name in self._hosts or self._local.find(name) is not None

    def resolvers(self, name: str) -> tuple[Server, ...] | None:
        """The resolvers outside the tunnel that know about ``name``; None if it is not in a split domain."""
        return self._split.find(name)

    def may_be_fake(self, name: str) -> bool:
        """Return whether ``name`` may be given a fake address: a host's name outside the excluded domains."""
        return bool(name) and "\\" not in name and not self._fake_exclude.find(name)

    def _from_records(self, query: Query, records: Records, stream: bool) -> bytes:
        found = records.get(query.type)
        if found:
            return local_answer(query, answers=found, stream=stream)
        return local_answer(query, authorities=self._nothing, stream=stream)


def _address_records(addresses: Sequence[str], ttl: int) -> Records:
    records: dict[int, tuple[LocalRecord, ...]] = {RecordType.A: (), RecordType.AAAA: ()}
    for text in addresses:
        address = ipaddress.ip_address(text)
        type_ = RecordType.A if address.version == 4 else RecordType.AAAA
        records[type_] += (LocalRecord(type_, ttl, address.packed),)
    return records
