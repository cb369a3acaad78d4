"""Where the usual addresses of the tunnel belong to a network of the host, others are taken."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from halftunnel_vpn.client.host.free_addresses import FAKE_PLACES, PLACES, with_free_addresses
from halftunnel_vpn.config.client import parse_client


@pytest.fixture
def profile(profile_text):
    """The profile with further sections, as text."""
    return lambda *more: parse_client("\n".join([profile_text, *more]))


def test_nothing_changes_where_nothing_collides(profile):
    made = profile()
    used = [ip_network("10.73.73.0/24"), ip_network("192.168.1.0/24"), ip_network("fd00::/64")]
    assert with_free_addresses(made, used) == (made, [])


@pytest.mark.parametrize("lan", ["10.73.72.0/24", "10.0.0.0/8", "10.73.72.53/32"])
def test_a_lan_with_the_usual_addresses_moves_the_tunnel(profile, lan):
    made, sentences = with_free_addresses(profile(), [ip_network(lan)])
    assert made.tun.addresses == (ip_interface("172.30.72.1/32"), ip_interface("fd48:5456:504e::1/128"))
    assert made.dns.addresses == (ip_address("172.30.72.53"), ip_address("fd48:5456:504e::53"))
    (sentence,) = sentences
    assert sentence.startswith("a network of this host has 10.73.72.") and "172.30.72.1 instead" in sentence


def test_both_versions_move_and_a_place_in_use_is_passed_over(profile):
    used = [ip_network("10.0.0.0/8"), ip_network("172.16.0.0/12"), ip_network("fd48:5456::/32")]
    made, sentences = with_free_addresses(profile(), used)
    assert [str(one) for one in made.tun.addresses] == ["192.168.172.1/32", "fdb3:1c2e:72f0::1/128"]
    assert [str(one) for one in made.dns.addresses] == ["192.168.172.53", "fdb3:1c2e:72f0::53"]
    assert len(sentences) == 2


def test_addresses_that_the_profile_names_stay_and_are_reported(profile):
    made = profile("[tun]", 'addresses = ["10.1.2.3/32", "fd00::3/128"]')
    assert with_free_addresses(made, [ip_network("10.1.2.0/24")]) == (
        made,
        ["the address 10.1.2.3 of the tunnel also belongs to a network of this host"],
    )


def test_without_a_free_place_the_addresses_stay_and_are_reported(profile):
    made = profile()
    used = [ip_network(f"{place}/24") for place in PLACES[4]]
    assert with_free_addresses(made, used)[0] == made
    assert len(with_free_addresses(made, used)[1]) == 1


def test_fake_addresses_move_in_the_mode_that_uses_them(profile):
    lab = [ip_network("198.18.7.0/24")]
    assert with_free_addresses(profile(), lab) == (profile(), [])
    made, sentences = with_free_addresses(profile("[dns]", 'mode = "fake-ip"'), lab)
    assert [str(one) for one in made.dns.fake_networks] == [FAKE_PLACES[4][1], FAKE_PLACES[6][0]]
    assert len(sentences) == 1
    named = profile("[dns]", 'mode = "fake-ip"', 'fake_networks = ["198.18.0.0/16", "fd00:1::/96"]')
    assert with_free_addresses(named, lab)[0] == named
