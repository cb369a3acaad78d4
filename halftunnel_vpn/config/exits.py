"""The exits of a profile: one in ``[exit]`` and the two tables of its paths, or several in ``[[exits]]``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from halftunnel_vpn.config import net, values
from halftunnel_vpn.config.schema import config_table, entries, option, optional_section, required, section

MAX_EXITS = 16
"""The most exits of a profile."""

MAX_URLS = 16
"""The most URLs of one direction."""

MAX_CONNECTIONS = 16
"""The most legs to one URL."""

MAX_WEIGHT = 1000
"""The largest weight of one URL, relative to the others."""

MAX_PRIORITY = 1000
"""The largest priority of an exit, the least preferred."""

DEFAULT_PRIORITY = 100


@config_table
class TlsConfig:
    """``[tls]``: which certificates to trust for wss://, and which names and headers to send.

    Without ``ca`` and ``certificate_sha256`` the certificate authorities of this machine are trusted.
    """

    ca: str = option(values.certificates, default="")
    certificate_sha256: tuple[bytes, ...] = option(values.several(values.fingerprint, maximum=16), default=())
    server_name: str | None = option(values.optional(net.domain), default=None)
    host_header: str | None = option(values.optional(net.host_header), default=None)
    headers: Mapping[str, str] = entries(
        values.free_table(net.header_name, net.header_value), default_factory=dict, secret=True
    )


RoadPolicy = Literal["all", "failover"]
Spread = Literal["round-robin", "weighted"]


@config_table
class RoadConfig:
    """``[upstream]`` and ``[downstream]``: the legs of one direction.

    ``weights`` has one number for each URL, or none. ``tls`` is complete after reading: keys that
    ``[upstream.tls]`` leaves out are taken from ``[tls]``.
    """

    urls: tuple[str, ...] = required(values.several(net.websocket_url, minimum=1, maximum=MAX_URLS))
    connections: int = option(values.integer(1, MAX_CONNECTIONS), default=1)
    policy: RoadPolicy = option(values.one_of("all", "failover"), default="all")
    spread: Spread = option(values.one_of("round-robin", "weighted"), default="round-robin")
    weights: tuple[int, ...] = option(
        values.several(values.integer(1, MAX_WEIGHT), maximum=MAX_URLS, distinct=False), default=()
    )
    rotate_after: float = option(values.duration(1, 30 * 86400), default=3600.0)
    rotate_bytes: int = option(values.size(2**20, 2**37), default=2**34)
    urgent_leg: bool = option(values.boolean, default=True)
    tls: TlsConfig = optional_section(default_factory=TlsConfig)


@config_table
class ExitConfig:
    """``[exit]``: the exit. ``name`` and ``priority`` are used beside further exits in ``[[exits]]``."""

    public_key: bytes = required(values.key)
    name: str | None = option(values.optional(values.identifier), default=None)
    priority: int = option(values.integer(0, MAX_PRIORITY), default=DEFAULT_PRIORITY)


@config_table
class ClientConfig:
    """``[client]``: this client. After reading it has a key, unless every exit has one of its own."""

    private_key: bytes = required(values.key, secret=True)


@config_table
class ExitEntry:
    """``[[exits]]``: one exit of several. The lowest ``priority`` is preferred, then the order of the file.

    ``private_key`` is this client's key at this exit; None: that of ``[client]``.
    """

    name: str = required(values.identifier)
    public_key: bytes = required(values.key)
    priority: int = option(values.integer(0, MAX_PRIORITY), default=DEFAULT_PRIORITY)
    private_key: bytes | None = option(values.optional(values.key), default=None, secret=True)
    upstream: RoadConfig = section(RoadConfig)
    downstream: RoadConfig = section(RoadConfig)
    tls: TlsConfig = optional_section(default_factory=TlsConfig)


@config_table
class FailoverConfig:
    """``[failover]``: when another exit of the profile is used."""

    patience: float = option(values.duration(0.5, 60), default=1.5)
    switch_back: bool = option(values.boolean, default=True)
    switch_back_after: float = option(values.duration(1, 86400), default=60.0)


def in_order(entries: Sequence[ExitEntry]) -> tuple[ExitEntry, ...]:
    """Return the exits, the preferred one first."""
    return tuple(sorted(entries, key=lambda entry: entry.priority))


def complete(entry: ExitEntry, common: TlsConfig, private_key: bytes | None) -> ExitEntry:
    """Return ``entry`` with what it leaves out taken from the profile."""
    tls = with_tls(entry.tls, common)
    return dataclasses.replace(
        entry,
        private_key=entry.private_key or private_key,
        upstream=dataclasses.replace(entry.upstream, tls=with_tls(entry.upstream.tls, tls)),
        downstream=dataclasses.replace(entry.downstream, tls=with_tls(entry.downstream.tls, tls)),
        tls=tls,
    )


def with_tls(own: TlsConfig, common: TlsConfig) -> TlsConfig:
    """Return ``own`` with the keys that it leaves out taken from ``common``."""
    pinned = bool(own.ca or own.certificate_sha256)
    return TlsConfig(
        # All trust settings belong together: a direction with its own pin does not also trust the common
        # ones.
        ca=own.ca if pinned else common.ca,
        certificate_sha256=own.certificate_sha256 if pinned else common.certificate_sha256,
        server_name=own.server_name or common.server_name,
        host_header=own.host_header or common.host_header,
        headers={**common.headers, **own.headers},
    )
