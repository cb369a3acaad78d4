"""Rules and routes as messages: what the real kernel makes of them."""

from __future__ import annotations

import socket

import pytest
from lab import Lab
from lab.topology import CLIENT_A

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.netlink import with_kernel
from halftunnel_vpn.host.kernel.route_socket import MAX_BATCH
from halftunnel_vpn.host.kernel.routes import Route, Rule

pytestmark = pytest.mark.root


def test_more_rules_than_one_message_carries(client: Lab) -> None:
    rules = [
        Rule(4, 6000 + number, "lookup", table=300, mark=number) for number in range(1, 2 * MAX_BATCH + 2)
    ]
    with_kernel(lambda kernel: kernel.add_rules(rules))
    assert with_kernel(lambda kernel: kernel.rules()) == set(rules)
    with_kernel(lambda kernel: kernel.remove_rules(rules[1:]))
    with pytest.raises(HostError, match=r"^The kernel refused a change of the network: File exists\.$"):
        with_kernel(lambda kernel: kernel.add_rules(rules[:1]))
    with_kernel(lambda kernel: kernel.remove_rules(rules))  # all but one are gone already
    assert with_kernel(lambda kernel: kernel.rules()) == set()


def test_every_kind_of_route_is_read_as_it_was_written(client: Lab) -> None:
    device = socket.if_nametoindex("road-a")
    routes = [
        *(Route(version, through_tun, 72540) for version in (4, 6) for through_tun in (True, False)),
        Route(4, False, 200, "lo", ""),
        Route(4, False, 300, "road-a", CLIENT_A.rpartition(".")[0] + ".99"),
    ]
    for route in routes:
        with_kernel(lambda kernel, route=route: kernel.add_route(route, device))
    assert with_kernel(lambda kernel: kernel.routes((72540, 200, 300, 254))) == set(routes)
    for route in (*routes, routes[0]):
        with_kernel(lambda kernel, route=route: kernel.remove_route(route))
    assert with_kernel(lambda kernel: kernel.routes((72540, 200, 300))) == set()
