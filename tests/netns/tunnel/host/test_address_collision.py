"""A LAN that has the tunnel's usual addresses: others are taken, and both work."""

from __future__ import annotations

import pytest
from lab.topology import CLIENT, LAN, LAN_LINK, TARGET_ADDRESS

pytestmark = pytest.mark.root

LAN_HOST, OUR_HOST = "10.73.72.53", "10.73.72.7"
"""The first is the usual address of the tunnel's resolver."""


def test_a_lan_with_the_usual_addresses_keeps_them(new_rig):
    with new_rig() as own:
        assert own.tunnel.stop_client() == 0
        own.lab.run(LAN, ["ip", "address", "add", f"{LAN_HOST}/24", "dev", LAN_LINK])
        own.lab.run(CLIENT, ["ip", "address", "add", f"{OUR_HOST}/24", "dev", LAN_LINK])
        own.tunnel.start_client()
        own.tunnel.wait_connected()
        (notice,) = own.tunnel.status()["notices"]
        assert notice.startswith("a network of this host has 10.73.72.") and "172.30.72.1" in notice
        own.client(f"ping -c 1 -W 10 {LAN_HOST}")
        assert own.client("dig +short +time=20 target.test").split() == [TARGET_ADDRESS]
        assert "172.30.72.53" in own.client("cat /etc/resolv.conf")
