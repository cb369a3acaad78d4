"""A host whose clock is an hour behind, with its kill switch: the tunnel comes up and says so."""

from __future__ import annotations

import pytest
from lab import Lab
from lab.target import start_target
from lab.topology import CLIENT
from lab.tunnel import LabTunnel

pytestmark = pytest.mark.root


def test_an_hour_behind_with_a_kill_switch(no_leftovers):
    with Lab() as lab:
        target = start_target(lab)
        tunnel = LabTunnel(lab, profile={"protection": {"kill_switch": '"on"'}})
        tunnel.start_exit()
        tunnel.start_client(wrapper=["faketime", "-f", "-1h"])
        tunnel.wait_connected()
        lab.run(CLIENT, ["curl", "-sSf", "-o", "/dev/null", target.file_url])
        (notice,) = tunnel.status()["notices"]
        assert notice.startswith("The clock of this machine is 60 minutes behind the exit's")
        assert notice in tunnel.client_output()
        assert "The clock of this machine is 60 minutes behind" in tunnel.htvpn(
            CLIENT, "status", "--socket", str(tunnel.socket)
        )
        assert tunnel.down() == 0, tunnel.client_output()
