"""Static hosts, blocked names and split domains; and DNS left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from lab.target import start_lan_resolver
from lab.topology import (
    CLIENT_LAN,
    EXIT_UPLINK,
    LAN_RESOLVER,
    TARGET_ADDRESS,
    TARGET_ADDRESS6,
)

pytestmark = pytest.mark.root

RULES = {
    "dns": {"block": '["ads.test", "tracker.target.test"]'},
    "dns.hosts": {'"nas.home.test"': '["192.0.2.7", "2001:db8::7"]', '"target.test"': '["192.0.2.8"]'},
    "dns.split": {'"lan"': f'["{LAN_RESOLVER}"]'},
}


@pytest.fixture(scope="module")
def own(new_rig) -> Iterator:
    """A tunnel with rules, and a resolver on the client's own network."""
    with new_rig(profile=RULES) as made:
        made.lan_notes = start_lan_resolver(made.lab)
        yield made


@pytest.fixture(scope="module")
def dig(own, dig_on) -> Callable:
    return dig_on(own)


def test_static_hosts(dig):
    assert dig("nas.home.test A").values == ["192.0.2.7"]
    assert dig("NAS.home.test AAAA").values == ["2001:db8::7"]
    nothing = dig("nas.home.test TXT")
    assert (nothing.status, nothing.answers) == ("NOERROR", [])


def test_static_hosts_win_over_the_exits_resolver(own, dig):
    assert dig("target.test A").values == ["192.0.2.8"]
    assert own.client("getent ahostsv4 target.test").split()[0] == "192.0.2.8"


@pytest.mark.parametrize("name", ["ads.test", "a.b.ads.test", "tracker.target.test"])
def test_blocked_names_do_not_exist_and_nobody_is_asked(own, dig, asked_of_target, name):
    for kind in ("A", "AAAA", "TXT"):
        assert dig(f"{name} {kind}").status == "NXDOMAIN"
    assert not [line for line in asked_of_target(own.lab) if name in line]


def test_a_name_that_only_ends_alike_is_not_blocked(own, dig, asked_of_target):
    assert dig("myads.test A").status == "NXDOMAIN"
    assert f"udp {EXIT_UPLINK} myads.test A" in asked_of_target(own.lab)


@pytest.mark.parametrize("road", ["+notcp", "+tcp"], ids=["UDP", "TCP"])
def test_a_split_domain_is_asked_of_its_resolver_on_the_lan(own, dig, asked_of_target, road):
    assert dig(f"{road} printer.lan A").values == ["192.168.77.80"]
    assert dig(f"{road} @8.8.8.8 nothing.lan A").status == "NXDOMAIN"
    assert f"udp {CLIENT_LAN} printer.lan A" in own.lan_notes.read_text()
    assert not [line for line in asked_of_target(own.lab) if line.split()[2].endswith(".lan")]


def test_nothing_else_is_asked_of_the_resolver_on_the_lan(own, dig):
    assert dig("who.test TXT").values == ['"target"']
    assert dig(f"@{LAN_RESOLVER} who.test TXT").values == ['"target"']
    names = {line.split()[2] for line in own.lan_notes.read_text().splitlines()}
    assert all(name.endswith(".lan") for name in names)


def test_with_mode_off_queries_are_left_alone(new_rig, dig_on, asked_of_target):
    with new_rig(profile={"dns": {"mode": '"off"'}}) as own:
        dig = dig_on(own)
        notes = start_lan_resolver(own.lab)
        assert f"nameserver {LAN_RESOLVER}" in own.client("cat /etc/resolv.conf")

        # the host's own resolver is on its LAN, and stays its resolver
        assert dig("who.test TXT").values == ['"lan"']
        assert dig(f"+tcp @{LAN_RESOLVER} who.test TXT").values == ['"lan"']
        assert f"udp {CLIENT_LAN} who.test TXT" in notes.read_text()
        assert not [line for line in asked_of_target(own.lab) if "who.test" in line]

        # any other is reached through the tunnel like any other server
        for address in (TARGET_ADDRESS, TARGET_ADDRESS6):
            for road in ("+notcp", "+tcp"):
                assert dig(f"{road} @{address} who.test TXT").values == ['"target"']
        assert f"udp {EXIT_UPLINK} who.test TXT" in asked_of_target(own.lab)
        assert own.tunnel.status()["flows"]["udp"] >= 1
        assert dig("+time=2 @198.51.100.2 -p 54 who.test TXT").status is None
