"""ping and traceroute as a person uses them, and datagrams that the client's kernel cuts into fragments.

After its last request ping waits for two round trips and no longer, unless it has a deadline (-w).
"""

from __future__ import annotations

import re
import struct

import pytest
from lab.topology import TARGET_ADDRESS, TARGET_ADDRESS6

pytestmark = pytest.mark.root

ROAD = {
    4: [TARGET_ADDRESS, "198.51.100.130", "198.51.100.194"],
    6: [TARGET_ADDRESS6, "2001:db8:100:0:1::2", "2001:db8:100:0:2::2"],
}
"""The hops from the exit to the far host."""

ECHO = struct.Struct(">BBHHH")

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def hops(output: str) -> list[str]:
    """The addresses that `traceroute -n` shows, one for each hop."""
    return re.findall(r"^ *\d+  (\S+)", output, re.MULTILINE)


@both_versions
@pytest.mark.parametrize("size", [0, 56, 1472, 4000, 8000, 65_000])
def test_ping_of_any_size(rig, version, size):
    """Beyond 1472 bytes the client's kernel sends fragments, and so does the exit's."""
    target = TARGET_ADDRESS if version == 4 else TARGET_ADDRESS6
    said = rig.client(f"ping -n -c 3 -i 0.1 -w 30 -s {size} {target}")
    assert " 3 received" in said
    assert "DUP" not in said and "wrong data" not in said


@both_versions
def test_ping_shows_the_hop_limit_and_a_short_time(rig, version):
    said = rig.client(f"ping -n -c 20 -i 0.05 -w 30 {ROAD[version][0]}")
    minimum = float(re.search(r"rtt min/avg/max/mdev = ([\d.]+)/", said)[1])
    assert minimum < 200
    assert "ttl=64" in said


@pytest.mark.parametrize("method", ["", "-I"], ids=["UDP", "ICMP"])
@both_versions
def test_traceroute_shows_every_hop_behind_the_exit(rig, road_beyond, version, method):
    said = rig.client(f"traceroute -n -{version} -w 20 {method} {ROAD[version][-1]}")
    assert hops(said) == ROAD[version]
    assert "!" not in said


@both_versions
def test_a_traceroute_over_tcp_shows_every_hop_behind_the_exit(rig, road_beyond, version):
    """The last hop refuses the connection, and so shows itself."""
    said = rig.client(f"traceroute -n -{version} -w 20 -T -p 81 {ROAD[version][-1]}")
    assert hops(said) == ROAD[version]


@both_versions
def test_ping_with_a_small_hop_limit_names_the_router(rig, road_beyond, version):
    said = rig.client(f"ping -n -c 1 -W 20 -t 2 {ROAD[version][-1]}", check=False)
    assert re.search(rf"From {ROAD[version][1]} icmp_seq=1 Time (to live )?exceeded", said)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("198.51.100.66", "Destination Host Unreachable"),
        ("2001:db8:100::66", "Destination unreachable: Address unreachable"),
        ("9.9.9.9", "Destination Net Unreachable"),
        ("2620:fe::fe", "Destination unreachable: No route"),
        ("192.168.200.1", "Packet filtered"),
        ("fd00::1", "Destination unreachable: Administratively prohibited"),
    ],
)
def test_ping_to_where_nobody_is_shows_the_error(rig, address, told):
    said = rig.client(f"ping -n -c 1 -W 20 {address}", check=False)
    assert told in said


@both_versions
def test_ping_too_long_for_a_link_behind_the_exit_is_told_the_mtu(rig, new_far_address, version):
    said = rig.client(f"ping -n -c 1 -W 20 -M do -s 1400 {new_far_address(version)}", check=False)
    assert re.search(r"(mtu ?= ?1280|Packet too big: mtu=1280)", said)


@both_versions
def test_many_pings_at_once(ends, version):
    """Forty programs, twenty echoes each; a ping socket gets the answers to its own requests only."""
    address = (ROAD[version][0], 0)
    request, reply = (8, 0) if version == 4 else (128, 129)
    pings = [ends.ping(version) for _ in range(40)]
    for sequence in range(20):
        for number, ping in enumerate(pings):
            ping.sendto(ECHO.pack(request, 0, 0, 0, sequence) + b"%d of %d" % (sequence, number), address)
    for number, ping in enumerate(pings):
        answers = {}
        for _ in range(20):
            message = ping.recv(1000)
            kind, _, _, _, sequence = ECHO.unpack_from(message)
            assert kind == reply
            answers[sequence] = message[ECHO.size :]
        assert answers == {sequence: b"%d of %d" % (sequence, number) for sequence in range(20)}


@both_versions
def test_a_flood_of_pings(rig, version):
    said = rig.client(f"ping -n -q -f -c 2000 -w 60 {ROAD[version][0]}")
    assert " 2000 received" in said


def test_flows_of_pings_are_counted(rig):
    rig.client(f"ping -n -q -c 1 {TARGET_ADDRESS}")
    assert rig.tunnel.status()["flows"]["icmp"] > 0
