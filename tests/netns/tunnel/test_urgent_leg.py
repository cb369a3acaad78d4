"""Both roads lose packets: both directions get a leg for pings, and bulk stays on the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lab import Lab
from lab.bench import roads, traffic
from lab.target import start_target
from lab.topology import CLIENT, TARGET, TARGET_ADDRESS
from lab.tunnel import LabTunnel

pytestmark = pytest.mark.root

PORT = traffic.IPERF_BENCH_PORT
BULK = f"iperf3 --client {TARGET_ADDRESS} --port {PORT} --bidir --bitrate 100M --time 90".split()
"""Both ways, and slow enough that the processor is left to others."""

LOST_PERMILLE = 30
PINGS = 20
PING_BYTES = 1000


def test_pings_beside_bulk_on_paths_that_lose_have_legs_of_their_own(
    lab: Lab, eventually: Callable[..., None]
) -> None:
    start_target(lab, file_size=1000)
    tunnel = LabTunnel(lab)
    tunnel.start()

    carried: dict[tuple[str, bool], int] = {}

    def have_pings_their_legs() -> bool:
        """Note what the legs of each direction, and of each kind, carried."""
        status = tunnel.status()
        assert status is not None
        for way, count in (("upstream", "sent_bytes"), ("downstream", "received_bytes")):
            for urgent in (True, False):
                legs = [leg for leg in status[way]["open_legs"] if leg["urgent"] is urgent]
                carried[way, urgent] = sum(leg[count] for leg in legs)
        return all(carried[way, True] > PINGS * PING_BYTES for way in ("upstream", "downstream"))

    roads.set_loss(lab, LOST_PERMILLE)
    pings = lab.start(CLIENT, ["ping", "-n", "-q", "-i", "0.02", "-s", str(PING_BYTES), TARGET_ADDRESS])
    server = lab.start(TARGET, ["iperf3", "--server", "--one-off", "--port", str(PORT)])
    lab.wait_listening(TARGET, PORT)
    bulk = lab.start(CLIENT, BULK)
    eventually(have_pings_their_legs)
    for process in (bulk, server, pings):
        lab.stop(process)
    for way in ("upstream", "downstream"):
        assert carried[way, True] < carried[way, False] / 2, "bulk stays away"
