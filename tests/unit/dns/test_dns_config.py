"""Invalid settings are refused, with the key and the value."""

from __future__ import annotations

import pytest

from halftunnel_vpn.dns.dns_config import DnsServiceConfig, normal_name
from halftunnel_vpn.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "fake"}, "dns.mode: 'fake' is not allowed; use forward or fake-ip."),
        ({"block_answer": "drop"}, "dns.block_answer: 'drop' is not allowed"),
        ({"hosts": {"nas": ["192.0.2.300"]}}, "dns.hosts.nas: '192.0.2.300' is not an IP address."),
        ({"split": {"corp": []}}, "dns.split.corp: name at least one resolver."),
        ({"split": {"corp": [("ns.corp", 53)]}}, "dns.split.corp: 'ns.corp' is not an IP address."),
        ({"split": {"corp": [("192.0.2.1", 0)]}}, "dns.split.corp: 0 is not a port"),
        ({"fake_network_v4": "198.18.0.0/31"}, "dns.fake_network_v4: '198.18.0.0/31' must be"),
        ({"fake_network_v4": "fd00::/64"}, "dns.fake_network_v4: 'fd00::/64' must be an IPv4 network"),
        ({"fake_network_v6": "fd00::1/64"}, "dns.fake_network_v6: 'fd00::1/64' is not a network."),
    ],
)
def test_a_value_that_is_not_allowed_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DnsServiceConfig(**settings)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_names_are_brought_to_one_spelling() -> None:
    assert normal_name("Bücher.Example.") == "xn--bcher-kva.example"
    assert normal_name(".") == ""


@pytest.mark.parametrize("name", ["*.example.org", "a b.example", "a..b", "a" * 64, "a/b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a domain name"):
        normal_name(name)
