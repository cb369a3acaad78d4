"""The exit's configuration, and the files of its clients."""

from __future__ import annotations

import base64
from ipaddress import ip_address, ip_network

import pytest

from halftunnel_vpn.config.clients import parse_client_entry
from halftunnel_vpn.config.net import Endpoint, SocketName
from halftunnel_vpn.config.server import parse_server
from halftunnel_vpn.errors import ConfigError


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_server(text)
    return str(caught.value)


def test_a_minimal_configuration_gets_the_defaults_of_the_design(minimal_server):
    config = parse_server(minimal_server)

    assert config.server.private_key == "exit.key"
    assert config.server.site == ""
    assert (config.listen.upstream.address, config.listen.upstream.port) == ("::", 443)
    assert config.listen.upstream.tls and not config.listen.downstream.tls
    assert config.listen.downstream.path == "/down"
    assert config.public.upstream.urls == ("wss://a.example.org/up",)
    assert config.egress.allow == () and config.egress.ipv6 == "auto"
    assert config.dns.resolvers == ()
    assert config.limits.streams_per_client == 16384
    assert config.limits.session_idle == 300.0
    assert config.metrics.listen is None


def test_values_arrive_as_what_the_program_uses(minimal_server):
    config = parse_server(
        minimal_server
        + """
[listen]
trusted_proxies = ["127.0.0.0/8", "::1"]
[egress]
allow = ["10.0.0.0/8"]
deny = ["10.9.0.0/16"]
ipv6 = "off"
[dns]
resolvers = ["9.9.9.9", "2620:fe::fe"]
[metrics]
listen = "[::1]:9100"
"""
    )
    assert config.listen.trusted_proxies == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert config.egress.allow == (ip_network("10.0.0.0/8"),)
    assert config.egress.deny == (ip_network("10.9.0.0/16"),)
    assert config.egress.ipv6 == "off"
    assert config.dns.resolvers == (ip_address("9.9.9.9"), ip_address("2620:fe::fe"))
    assert config.metrics.listen == Endpoint("::1", 9100)


@pytest.mark.parametrize(
    "endpoint",
    ["9100", ":9100", "localhost:9100", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536",
     "::1:9100", "[127.0.0.1]:9100", "[::1]9100", "127.0.0.1:\u0669", "127.0.0.1:+91", "127.0.0.1:999999"],
)  # fmt: skip
def test_an_endpoint_is_an_address_and_a_port(minimal_server, endpoint):
    text = f'{minimal_server}\n[metrics]\nlisten = "{endpoint}"\n'
    assert "must be an address and a port, like 127.0.0.1:9100 or [::1]:9100" in problem(text)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("port = 443", "port = 0", "[listen.upstream] port = 0: must be a whole number from 1 to 65535"),
        ('address = "::"', 'address = "localhost"', "must be an IPv4 or IPv6 address"),
        ('path = "/up"', 'path = "up"', 'must be a path that begins with "/"'),
        ('path = "/up"', 'path = "/up?x"', 'must be a path that begins with "/"'),
        ('certificate = "up.pem"\n', "", "both must name a file while tls = true"),
        ('private_key = "exit.key"', "", "[server] private_key is missing"),
        ('private_key = "exit.key"', 'private_key = "a\\u0000b"', "must be the name of a file"),
        ("[public.upstream]", "[public.upstraem]", "[public.upstraem]: unknown table; did you mean"),
        ('urls = ["wss://a.example.org/up"]', "urls = []", "must be an array of 1 to 16 elements"),
        ("tls = false", 'tls = "no"', '[listen.downstream] tls = "no": must be true or false'),
    ],
)
def test_a_mistake_is_named(minimal_server, old, new, expected):
    assert old in minimal_server
    assert expected in problem(minimal_server.replace(old, new))


def test_listeners_on_one_port_must_be_told_apart_by_path_and_agree_on_tls(minimal_server):
    shared = minimal_server.replace("192.0.2.1", "::").replace("8443", "443")
    assert "[listen.downstream] tls: must equal [listen.upstream]" in problem(shared)

    alike = shared.replace("tls = false", 'certificate = "down.pem"\ncertificate_key = "down.key"')
    assert parse_server(alike).listen.downstream.port == 443
    assert "path: must differ" in problem(alike.replace('path = "/down"', 'path = "/up"'))


def test_limits_of_all_are_no_smaller_than_those_of_one(minimal_server):
    assert "max_streams: must be at least" in problem(minimal_server + "[limits]\nmax_streams = 10\n")
    assert "session_window: must be" in problem(minimal_server + "[limits]\nsession_window = 262144\n")


def test_a_client_is_a_name_a_key_and_a_day():
    key = base64.b64encode(bytes(range(32))).decode()
    entry = parse_client_entry(
        f'name = "phone"\npublic_key = "{key}"\nadded = 2026-01-31\n', source="phone.toml"
    )
    assert (entry.name, entry.public_key, entry.added) == ("phone", bytes(range(32)), "2026-01-31")

    with pytest.raises(ConfigError, match="3 problems") as caught:
        parse_client_entry(
            'name = "../x"\npublic_key = ""\nadded = 2026-01-31T00:00:00\n', source="phone.toml"
        )
    assert "added = 2026-01-31 00:00:00: must be a date like 2026-01-31" in str(caught.value)


@pytest.mark.parametrize(
    ("listen", "place"),
    [
        ("127.0.0.1:8750", Endpoint("127.0.0.1", 8750)),
        ("127.7.7.7:1", Endpoint("127.7.7.7", 1)),
        ("[::1]:8750", Endpoint("::1", 8750)),
        ("unix:web.sock", SocketName("web.sock")),
        ("unix:/run/web/web.sock", SocketName("/run/web/web.sock")),
        ("", None),
    ],
)
def test_a_web_page_is_on_loopback_or_a_unix_socket(minimal_server, listen, place):
    assert parse_server(f'{minimal_server}\n[web]\nlisten = "{listen}"\n').web.listen == place


@pytest.mark.parametrize(
    "listen",
    [
        "0.0.0.0:8750", "[::]:8750", "192.168.1.1:8750", "[::ffff:127.0.0.1]:8750", "localhost:8750",
        "127.0.0.1", "127.0.0.1:0", "unix:", "8750", "unix:" + "x" * 108,
    ],
)  # fmt: skip
def test_a_web_page_elsewhere_is_refused_in_one_sentence(minimal_server, listen):
    with pytest.raises(ConfigError) as refused:
        parse_server(f'{minimal_server}\n[web]\nlisten = "{listen}"\n')
    assert "must be a loopback address and a port, like 127.0.0.1:8750" in str(refused.value)
    assert "\n" not in str(refused.value)
