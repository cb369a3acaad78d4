"""A variable for each key: which one, what its text means, and what is said when it is wrong."""

from __future__ import annotations

import base64
import ipaddress

import pytest

from halftunnel_vpn.config import environment_variables
from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.config.server import ServerConfig, parse_server
from halftunnel_vpn.errors import ConfigError

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize("kind", [ClientProfile, ServerConfig])
def test_no_two_keys_have_one_variable(kind):
    names = list(environment_variables.variables(kind))
    assert len(names) == len(set(names))
    assert {
        name for name in names if name.removesuffix(environment_variables.FILE_SUFFIX) in set(names) - {name}
    } == set()
    # what `server run` makes an exit with, and whole files, have names of their own
    assert [name for name in names if name.startswith("HTVPN_INIT_")] == []
    assert {"HTVPN_PROFILE", "HTVPN_SERVER_CONFIG"} & set(names) == set()


def test_a_variable_goes_before_the_file(minimal_profile):
    text = minimal_profile + '[protection]\nkill_switch = "off"\n'
    profile = parse_client(
        text,
        variables={"HTVPN_PROTECTION_KILL_SWITCH": "on", "HTVPN_UPSTREAM_TLS_SERVER_NAME": "c.example.org"},
    )
    assert profile.protection.kill_switch == "on"
    assert profile.upstream.tls.server_name == "c.example.org"
    assert profile.downstream.tls.server_name is None
    assert parse_client(text).protection.kill_switch == "off"


@pytest.mark.parametrize(
    ("variable", "text", "where", "value"),
    [
        ("HTVPN_UPSTREAM_URLS", "wss://a.example.org/x", ("upstream", "urls"), ("wss://a.example.org/x",)),
        (
            "HTVPN_UPSTREAM_URLS",
            "wss://a.example.org/x, wss://c.example.org/x\n",
            ("upstream", "urls"),
            ("wss://a.example.org/x", "wss://c.example.org/x"),
        ),
        (
            "HTVPN_UPSTREAM_URLS",
            '["wss://a.example.org/x"]',
            ("upstream", "urls"),
            ("wss://a.example.org/x",),
        ),
        ("HTVPN_UPSTREAM_CONNECTIONS", "3", ("upstream", "connections"), 3),
        ("HTVPN_ROUTES_LAN", "false", ("routes", "lan"), False),
        ("HTVPN_LIMITS_UDP_IDLE", "2m", ("limits", "udp_idle"), 120.0),
        ("HTVPN_LIMITS_UDP_IDLE", "90", ("limits", "udp_idle"), 90.0),
        ("HTVPN_LIMITS_STREAM_WINDOW", "1MiB", ("limits", "stream_window"), 2**20),
        ("HTVPN_ROUTES_EXCLUDE", "", ("routes", "exclude"), ()),
        (
            "HTVPN_DNS_HOSTS",
            '{"nas.lan" = ["192.0.2.9"]}',
            ("dns", "hosts"),
            {"nas.lan": (ipaddress.ip_address("192.0.2.9"),)},
        ),
        ("HTVPN_PROXY_URL", '""', ("proxy", "url"), None),
    ],
)
def test_a_text_means_what_its_key_allows(minimal_profile, variable, text, where, value):
    profile = parse_client(minimal_profile, variables={variable: text})
    section, key = where
    assert getattr(getattr(profile, section), key) == value


def test_numbers_of_an_array_need_no_brackets(minimal_profile):
    variables = {
        "HTVPN_UPSTREAM_URLS": "wss://a.example.org/x wss://c.example.org/x",
        "HTVPN_UPSTREAM_WEIGHTS": "1,2",
    }
    assert parse_client(minimal_profile, variables=variables).upstream.weights == (1, 2)


def test_problems_name_the_variable(minimal_profile):
    with pytest.raises(ConfigError) as raised:
        parse_client(
            minimal_profile,
            source="home.toml",
            variables={
                "HTVPN_PROTECTION_KILL_SWITCH": "maybe",
                "HTVPN_PROTECTION_KILLSWITCH": "on",
                "HTVPN_UPSTREAM_URLS": "wss://a.example.org/x,nonsense",
                "HTVPN_CLIENT_PRIVATE_KEY": "hunter2",
                "HTVPN_LIMITS_UDP_IDLE": "soon",
                "HTVPN_ZEBRA": "1",
            },
        )
    lines = str(raised.value).splitlines()
    assert lines[0] == "home.toml has 6 problems:"
    found = sorted(line.strip() for line in lines[1:])
    assert found[0] == "HTVPN_CLIENT_PRIVATE_KEY = (not shown): " + found[0].partition(": ")[2]
    assert "hunter2" not in str(raised.value)
    assert found[1].startswith('HTVPN_LIMITS_UDP_IDLE = "soon": must be a duration')
    assert found[2].endswith("unknown variable; did you mean HTVPN_PROTECTION_KILL_SWITCH?")
    assert found[3].startswith('HTVPN_PROTECTION_KILL_SWITCH = "maybe": must be one of')
    assert found[4].startswith('HTVPN_UPSTREAM_URLS[1] = "nonsense": must be ')
    assert found[5] == "HTVPN_ZEBRA: unknown variable; names are HTVPN_TABLE_KEY"


def test_a_profile_of_variables_alone_says_which_are_missing():
    variables = {
        "HTVPN_NAME": "home",
        "HTVPN_CLIENT_PRIVATE_KEY": KEY,
        "HTVPN_UPSTREAM_URLS": "wss://a.example.org/x",
        "HTVPN_DOWNSTREAM_URLS": "wss://b.example.org/x",
    }
    with pytest.raises(ConfigError, match=r"\[exit\] public_key is missing; set HTVPN_EXIT_PUBLIC_KEY$"):
        parse_client("", variables=variables)
    other = base64.b64encode(bytes(range(1, 33))).decode()
    profile = parse_client("", variables={**variables, "HTVPN_EXIT_PUBLIC_KEY": other})
    assert profile.upstream.urls == ("wss://a.example.org/x",)


def test_an_exit_has_variables_as_well(minimal_server):
    variables = {"HTVPN_LISTEN_UPSTREAM_PORT": "8001", "HTVPN_METRICS_LISTEN": "127.0.0.1:9100"}
    config = parse_server(minimal_server, variables=variables)
    assert config.listen.upstream.port == 8001
    assert config.metrics.listen is not None and config.metrics.listen.port == 9100
