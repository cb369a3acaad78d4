"""The host's network changes under the tunnel: the legs move at once, and the flows on them live on."""

from __future__ import annotations

import pytest
from lab.topology import CLIENT, CLIENT_A, CLIENT_A6, EXIT_A, ROAD_A

pytestmark = pytest.mark.root

MOVED = "the network has changed: the legs move"


def test_what_concerns_no_leg_moves_none_and_a_new_address_moves_them_all(new_rig, eventually):
    with new_rig() as own:
        said = own.tunnel.client_output
        # somebody else's devices, addresses and routes; a second name of the network card's for privacy
        own.client(
            "ip link add br-other type bridge && ip address add 172.19.0.1/16 dev br-other && "
            "ip link set dev br-other up && ip route add 10.99.0.0/16 dev br-other && "
            f"sysctl -qw net.ipv6.conf.{ROAD_A}.use_tempaddr=2 && "
            f"ip address add 2001:db8:aa::1/64 dev {ROAD_A} mngtmpaddr && "
            "ip link del br-other"
        )
        download = own.lab.start(
            CLIENT, ["sh", "-c", f"curl -sSf --limit-rate 25M {own.target.file_url} | sha256sum"]
        )
        eventually(lambda: own.tunnel.status()["flows"]["tcp"] == 1)
        assert MOVED not in said()
        own.client(
            f"ip address del {CLIENT_A}/24 dev {ROAD_A} && ip address add 10.77.1.77/24 dev {ROAD_A} && "
            f"ip route replace default via {EXIT_A} dev {ROAD_A}"
        )
        eventually(lambda: MOVED in said())
        assert download.wait(60) == 0
        assert own.lab.output(download).split()[0] == own.target.file_sha256
        assert said().count(MOVED) == 1, "one change, one move"
        assert "lost" not in own.client(f"curl -sSf {own.target.file_url} -o /dev/null")


def test_a_road_that_comes_back_is_taken_at_once(new_rig, eventually):
    with new_rig() as own:
        own.client(f"ip link set dev {ROAD_A} down")
        own.client("ip link set dev road-b down")
        eventually(lambda: "this host has no route out now" in own.tunnel.client_output())
        own.client("ip link set dev road-b up && ip address replace fd77:2::2/64 dev road-b")
        own.client(
            f"ip link set dev {ROAD_A} up && ip route replace default via {EXIT_A} dev {ROAD_A} && "
            f"ip address replace {CLIENT_A6}/64 dev {ROAD_A}"
        )
        eventually(lambda: MOVED in own.tunnel.client_output())
        eventually(lambda: own.tunnel.status()["state"] == "connected")
        own.client(f"curl -sSf {own.target.file_url} -o /dev/null")
