"""A host whose clock is an hour off, with its kill switch: the tunnel comes up and says so."""

from __future__ import annotations

import pytest
from lab import Lab
from lab.target import start_target
from lab.topology import CLIENT
from lab.tunnel import HANDSHAKE_TIMES, LabTunnel

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab(no_leftovers):
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def target(lab):
    return start_target(lab)


@pytest.fixture(scope="module")
def tunnel(lab):
    made = LabTunnel(lab, profile={"protection": {"kill_switch": '"on"'}})
    made.start_exit()
    return made


@pytest.mark.parametrize(("offset", "where"), (("+1h", "ahead of"), ("-1h", "behind")))
def test_an_hour_off_with_a_kill_switch(lab, target, tunnel, offset, where):
    (tunnel.state_directory / HANDSHAKE_TIMES).unlink(missing_ok=True)  # what it knows would be late enough
    tunnel.start_client(wrapper=["faketime", "-f", offset])
    tunnel.wait_connected()
    small = target.file_url.replace("large.bin", "small.txt")
    lab.run(CLIENT, ["curl", "-sSf", "-o", "/dev/null", small])
    (notice,) = tunnel.status()["notices"]
    assert notice.startswith(f"The clock of this machine is 60 minutes {where} the exit's")
    assert notice in tunnel.client_output()
    assert f"The clock of this machine is 60 minutes {where}" in tunnel.htvpn(
        CLIENT, "status", "--socket", str(tunnel.socket)
    )
    assert tunnel.down() == 0, tunnel.client_output()
