"""Proxies, TLS files and certificate errors as text: what is accepted, and the errors that the user sees."""

from __future__ import annotations

import ssl

import pytest

from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.transport.connect import _in_order
from halftunnel_vpn.transport.happy_eyeballs import MAX_ADDRESSES
from halftunnel_vpn.transport.http_proxy import Proxy, parse_proxy
from halftunnel_vpn.transport.tls import client_context, server_context
from halftunnel_vpn.transport.tls_failure import tls_failure


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy:3128", Proxy("proxy", 3128, None)),
        ("http://proxy", Proxy("proxy", 80, None)),
        ("http://proxy/", Proxy("proxy", 80, None)),
        ("http://[2001:db8::1]:8080", Proxy("2001:db8::1", 8080, None)),
        ("http://me:s%3Acret%40@proxy:1", Proxy("proxy", 1, "me:s:cret@")),
        ("http://me@proxy", Proxy("proxy", 80, "me:")),
    ],
)
def test_proxies(url, expected):
    assert parse_proxy(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy:3128",
        "https://proxy",
        "socks5://proxy",
        "http://",
        "http://x:99999",
        "http://x/y",
        "http://x?y",
    ],
)
def test_texts_that_are_no_proxy(url):
    with pytest.raises(ConfigError, match="proxy"):
        parse_proxy(url)


def test_a_proxys_name_is_without_its_password():
    assert parse_proxy("http://me:secret@[::1]:8080").name == "[::1]:8080"


def test_addresses_take_turns_by_family_and_are_bounded():
    sixes = [(f"2001:db8::{n}", 1, 0, 0) for n in range(10)]
    fours = [(f"192.0.2.{n}", 1) for n in range(3)]
    ordered = _in_order([*sixes, *sixes, *fours])
    assert ordered == [sixes[0], fours[0], sixes[1], fours[1], sixes[2], fours[2], sixes[3], sixes[4]]
    assert len(ordered) == MAX_ADDRESSES
    assert _in_order([*fours, sixes[0]])[:2] == [fours[0], sixes[0]]


def test_a_client_trusts_only_what_it_is_told_to():
    system, pinned = client_context(None), client_context(None, leaf_is_pinned=True)
    assert (system.verify_mode, system.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (pinned.verify_mode, pinned.check_hostname) == (ssl.CERT_NONE, False)
    assert system.minimum_version == ssl.TLSVersion.TLSv1_2
    assert client_context(None) is system


@pytest.mark.parametrize(
    "text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_pinned_authority_that_is_none(text):
    with pytest.raises(ConfigError, match="PEM"):
        client_context(text)


def test_server_files_that_cannot_be_used(tmp_path):
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigError, match="No such file"):
        server_context(missing, missing)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    with pytest.raises(ConfigError, match="belong together"):
        server_context(nonsense, nonsense)


def test_a_cut_connection_in_tls_is_told_as_such():
    failure = tls_failure(ConnectionResetError(), "exit.example port 443")
    assert failure.reason == "tls-failed"
    assert "the connection was cut" in str(failure)
