"""Configuration files: whole ones, and the checks of single values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from halftunnel_vpn.config import net, values
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.config.clients import parse_client_entry
from halftunnel_vpn.config.schema import Check, Rejected, RejectedElements
from halftunnel_vpn.config.server import parse_server
from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.protocol.keys import decode_key, encode_key

CHECKS: tuple[Check[object], ...] = (
    values.boolean,
    values.integer(0, 10),
    values.one_of("a", "b"),
    values.identifier,
    values.interface_name,
    values.duration(1, 60),
    values.size(0, 2**32),
    values.key,
    values.fingerprint,
    values.certificates,
    values.file_name,
    values.date,
    net.address,
    net.network,
    net.interface_address,
    net.domain,
    net.suffix,
    net.host_header,
    net.path,
    net.websocket_url,
    net.proxy_url,
    net.endpoint,
    values.several(net.domain, maximum=8),
    values.free_table(net.domain, values.several(net.address, maximum=8)),
)


def _refused_in_words(parse: Callable[..., object], data: bytes) -> None:
    try:
        parse(data.decode("utf-8", "replace"), source="fuzzed.toml")
    except ConfigError as error:
        assert "fuzzed.toml" in str(error)


def config_client(data: bytes) -> None:
    """A client's profile."""
    _refused_in_words(parse_client, data)


def config_server(data: bytes) -> None:
    """An exit's configuration."""
    _refused_in_words(parse_server, data)


def config_client_entry(data: bytes) -> None:
    """One client in the exit's list."""
    _refused_in_words(parse_client_entry, data)


def config_value(data: bytes) -> None:
    """One text through one check; the first byte says which, and in what it is wrapped."""
    first = data[0] if data else 0
    text = data[1:].decode("utf-8", "replace")
    check = CHECKS[first % len(CHECKS)]
    for value in (text, text.split(","), dict.fromkeys(text.split(","), text.split(";"))):
        with suppress(Rejected, RejectedElements):
            check(value)


def key_text(data: bytes) -> None:
    """A key as it stands in a file."""
    with suppress(ConfigError):
        key = decode_key(data.decode("utf-8", "replace"))
        assert decode_key(encode_key(key)) == key
