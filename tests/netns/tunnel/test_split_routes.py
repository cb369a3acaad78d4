"""What goes into the tunnel and what does not: excluded networks, and a tunnel for some networks only."""

from __future__ import annotations

import contextlib
import socket

import pytest
from lab.topology import (
    CLIENT,
    CLIENT_A,
    CLIENT_A6,
    EXIT,
    EXIT_UPLINK,
    EXIT_UPLINK6,
    TARGET,
    TARGET_ADDRESS,
    TARGET_ADDRESS6,
)

pytestmark = pytest.mark.root

NEAR, NEAR6 = "203.0.113.9", "2001:db8:5::9"
"""Addresses of the exit's machine. Without a tunnel, the client's default route leads there."""


@pytest.fixture
def seen_from(new_rig):
    """Starts a tunnel with the given routes; what it returns connects to an address and tells how the other
    end sees the client."""
    with contextlib.ExitStack() as started:

        def start(**routes):
            profile = {"routes": {key: str(networks).replace("'", '"') for key, networks in routes.items()}}
            rig = started.enter_context(new_rig(profile=profile))
            for address in (f"{NEAR}/32", f"{NEAR6}/128"):
                rig.lab.run(EXIT, ["ip", "address", "add", address, "dev", "lo"])

            def connect(address):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                host = EXIT if address in (NEAR, NEAR6) else TARGET
                with rig.lab.inside(host):
                    listener = socket.create_server((address, 0), family=family)
                with listener, rig.lab.inside(CLIENT):
                    listener.settimeout(30)
                    with socket.create_connection(listener.getsockname()[:2], timeout=30):
                        connection, peer = listener.accept()
                        connection.close()
                        return peer[0]

            return connect

        yield start


def test_an_excluded_network_stays_out_of_the_tunnel(seen_from):
    seen_by = seen_from(exclude=["203.0.113.0/24", "2001:db8:5::/64"])
    assert seen_by(NEAR) == CLIENT_A
    assert seen_by(NEAR6) == CLIENT_A6
    assert seen_by(TARGET_ADDRESS) == EXIT_UPLINK
    assert seen_by(TARGET_ADDRESS6) == EXIT_UPLINK6


def test_only_included_networks_go_into_the_tunnel(seen_from):
    seen_by = seen_from(include=["198.51.100.0/24", "2001:db8:100::/64"])
    assert seen_by(TARGET_ADDRESS) == EXIT_UPLINK
    assert seen_by(TARGET_ADDRESS6) == EXIT_UPLINK6
    assert seen_by(NEAR) == CLIENT_A
    assert seen_by(NEAR6) == CLIENT_A6


def test_an_address_can_be_excluded_from_an_included_network(seen_from):
    seen_by = seen_from(include=["198.51.100.0/24", "203.0.113.0/24"], exclude=[f"{NEAR}/32"])
    assert seen_by(TARGET_ADDRESS) == EXIT_UPLINK
    assert seen_by(NEAR) == CLIENT_A
    assert seen_by(NEAR6) == CLIENT_A6
