"""Several legs in each direction, legs that are cut in the middle of a transfer, an exit that goes away."""

from __future__ import annotations

import contextlib
import re
import socket
import threading

import pytest
from lab.topology import EXIT_A, EXIT_B
from lab.tunnel import ROAD_PORT

pytestmark = pytest.mark.root

LARGE = 200_000_000
MOVED = 5_000_000
LEGS = 3


@pytest.fixture(scope="module")
def own(new_rig):
    """A tunnel of one leg in each direction, to break."""
    with new_rig() as made:
        yield made


@pytest.fixture(scope="module")
def broad(new_rig):
    """A tunnel of three legs in each direction."""
    roads = {road: {"connections": str(LEGS)} for road in ("upstream", "downstream")}
    with new_rig(profile=roads) as made:
        yield made


def legs(rig) -> tuple[int, int]:
    status = rig.tunnel.status()
    return status["upstream"]["legs"], status["downstream"]["legs"]


def local_ports(rig, address: str) -> list[str]:
    """The client's port of each leg to ``address``."""
    listed = rig.client(f"ss -Htn state established dst {address} dport = :{ROAD_PORT}")
    return re.findall(r":(\d+)\s+\S+:8443", listed)


def wait_moved(rig, eventually) -> None:
    """Return when MOVED further bytes have crossed each road."""

    def carried() -> tuple[int, int]:
        status = rig.tunnel.status()
        return status["upstream"]["sent_bytes"], status["downstream"]["received_bytes"]

    before = carried()
    eventually(lambda: all(now > then + MOVED for now, then in zip(carried(), before, strict=True)))


@contextlib.contextmanager
def cut(rig, address: str, port: str):
    """Answer one leg's next segment with RST, for as long as the block lasts."""
    rule = f"ip daddr {address} tcp sport {port} tcp dport {ROAD_PORT} counter reject with tcp reset"
    rig.client(
        "nft 'add table inet cut; add chain inet cut out { type filter hook output priority 0; };"
        f" add rule inet cut out {rule}'"
    )
    try:
        yield
    finally:
        rig.client("nft delete table inet cut")


@pytest.fixture
def transfers(ends_in, bulk):
    """Starts an upload and a download; the function that it returns tells whether both arrived whole."""

    def start(rig, size=LARGE, enough=None):
        ends = ends_in(rig.lab)
        up, down = ends.pair(), ends.pair(6)
        sent = [bulk.send(up[0], size, enough), bulk.send(down[1], size, enough)]
        received = [bulk.receive(up[1]), bulk.receive(down[0])]

        def are_whole() -> bool:
            return [future.result() for future in sent] == [future.result() for future in received]

        return are_whole

    return start


def test_several_legs_in_each_direction_carry_bulk_in_order(broad, eventually, transfers):
    eventually(lambda: legs(broad) == (LEGS, LEGS))
    assert transfers(broad)()
    for address in (EXIT_A, EXIT_B):
        assert len(local_ports(broad, address)) == LEGS


def test_every_leg_of_a_direction_carries_its_share(broad, eventually, transfers):
    eventually(lambda: legs(broad) == (LEGS, LEGS))
    assert transfers(broad)()
    for address, count in ((EXIT_A, "bytes_sent"), (EXIT_B, "bytes_received")):
        listed = broad.client(f"ss -Htin state established dst {address} dport = :{ROAD_PORT}")
        carried = [int(number) for number in re.findall(rf"\b{count}:(\d+)", listed)]
        assert len(carried) == LEGS
        assert min(carried) > 0.1 * sum(carried)


@pytest.mark.parametrize("address", (EXIT_A, EXIT_B), ids=("upstream", "downstream"))
@pytest.mark.parametrize("tunnel", ("own", "broad"), ids=("the only leg", "one of three"))
def test_a_leg_cut_in_mid_transfer_costs_no_byte(request, tunnel, address, eventually, transfers):
    rig = request.getfixturevalue(tunnel)
    whole = (1, 1) if tunnel == "own" else (LEGS, LEGS)
    eventually(lambda: legs(rig) == whole)
    session = rig.tunnel.status()["session"]
    enough = threading.Event()
    are_whole = transfers(rig, MOVED, enough)
    wait_moved(rig, eventually)
    port = local_ports(rig, address)[0]
    with cut(rig, address, port):
        eventually(lambda: port not in local_ports(rig, address))
    wait_moved(rig, eventually)
    enough.set()
    assert are_whole()
    eventually(lambda: legs(rig) == whole)
    assert rig.tunnel.status()["session"] == session


@pytest.mark.parametrize("killed", (False, True), ids=("stopped", "killed"))
def test_flows_end_with_a_reset_when_the_exit_restarts_and_new_ones_work(
    own, ends_in, eventually, transfers, killed
):
    tunnel = own.tunnel
    session = tunnel.status()["session"]
    client, target = ends_in(own.lab).pair()
    client.sendall(b"so far, so good")
    assert target.recv(15, socket.MSG_WAITALL) == b"so far, so good"

    if killed:
        tunnel.exit.kill()
        tunnel.exit.wait(60)
        assert target.recv(1) == b"", "the kernel of the exit closes what a dead process had open"
    else:
        assert tunnel.stop_exit() == 0
        with pytest.raises(ConnectionResetError):
            target.recv(1)
    tunnel.start_exit()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    eventually(lambda: tunnel.status()["state"] == "connected" and tunnel.status()["session"] > session)
    assert transfers(own, LARGE // 10)()
