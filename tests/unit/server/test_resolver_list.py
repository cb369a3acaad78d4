"""Which resolvers the exit asks, while resolv.conf comes, changes and goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from halftunnel_vpn.config.server import ServerConfig, parse_server
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.upstream import UpstreamResolver
from halftunnel_vpn.server.resolver_list import ResolverList

EXAMPLE = Path(__file__).parents[3] / "configs" / "server.toml"


@pytest.fixture
def config() -> ServerConfig:
    return parse_server(EXAMPLE.read_text())


def test_a_resolv_conf_that_comes_changes_and_goes_is_followed(
    config: ServerConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "resolv.conf"
    resolvers = ResolverList(config, path)
    upstream = UpstreamResolver(resolvers.current(), counters=Counters())
    assert upstream._servers == []
    assert resolvers.current() == []
    assert caplog.messages == ["no resolver is known: name them in [dns] resolvers of server.toml"]
    path.write_text("nameserver 192.0.2.1\nnameserver 2001:db8::1\n")
    assert resolvers.current() == [("192.0.2.1", 53), ("2001:db8::1", 53)]
    path.write_text("nameserver 192.0.2.2\n")
    upstream.set_servers(resolvers.current())
    assert upstream._servers == [("192.0.2.2", 53)]
    path.unlink()
    assert resolvers.current() == []
    assert len(caplog.messages) == 2


def test_resolvers_that_are_named_need_no_resolv_conf(tmp_path: Path) -> None:
    text = EXAMPLE.read_text().replace("resolvers = []", 'resolvers = ["192.0.2.9"]')
    resolvers = ResolverList(parse_server(text), tmp_path / "none")
    assert resolvers.current() == [("192.0.2.9", 53)]


def test_the_resolver_that_answered_last_stays_first_while_the_list_is_the_same() -> None:
    servers = [("192.0.2.1", 53), ("192.0.2.2", 53)]
    upstream = UpstreamResolver(servers, counters=Counters())
    upstream._prefer(servers[1])
    upstream.set_servers(list(servers))
    assert upstream._servers == servers[::-1]
    upstream.set_servers([("192.0.2.3", 53)])
    upstream._prefer(servers[0])  # an answer from the old list
    assert upstream._servers == [("192.0.2.3", 53)]
