"""Flows by program: real sockets and processes are found, and each peer gets what it may see."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from halftunnel_vpn.client.supervisor.flow_programs import FlowPrograms
from halftunnel_vpn.client.supervisor.tunnel_port import FakeTunnel
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.control import requests
from halftunnel_vpn.control.flow_schema import FlowList, FlowStatus, as_seen_by
from halftunnel_vpn.control.peer import Peer
from halftunnel_vpn.flow.flow_ends import FlowEnds
from halftunnel_vpn.host.kernel import socket_owners
from halftunnel_vpn.host.kernel.socket_owners import LocalEnd, SocketOwners

LOOPBACK = socket.inet_aton("127.0.0.1")
OWN_NAME = Path("/proc/self/comm").read_text().strip()


@pytest.fixture
def tunnel(profile_text):
    async def make(flows: list[FlowEnds]) -> FakeTunnel:
        made = FakeTunnel(parse_client(profile_text, source="test"), lambda: None)
        made.flows = flows
        return made

    return make


async def test_the_program_of_each_flow_is_found(tunnel):
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as connection,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as datagrams,
    ):
        accepted, _ = listener.accept()
        with accepted:
            connection.sendall(b"x" * 1000)
            accepted.sendall(b"y" * 500)
            assert len(accepted.recv(2000)) == 1000 and len(connection.recv(2000)) == 500
            datagrams.bind(("::", 0))
            port = connection.getsockname()[1]
            flows = [
                FlowEnds("tcp", LOOPBACK, port, LOOPBACK, listener.getsockname()[1]),
                FlowEnds("tcp", LOOPBACK, port, LOOPBACK, 1, "example.org"),
                FlowEnds("udp", socket.inet_aton("10.215.0.2"), datagrams.getsockname()[1]),
            ]
            listed = await FlowPrograms().of(await tunnel(flows))
    tcp, unknown, udp = listed["flows"]
    assert tcp["program"] == OWN_NAME and tcp["pid"] == os.getpid() and tcp["user"] == os.getuid()
    assert tcp["destination"] == f"127.0.0.1:{flows[0].remote_port}"
    assert tcp["sent_bytes"] in (1000, 1001) and tcp["received_bytes"] == 500
    assert unknown["program"] is None and unknown["pid"] is None and unknown["destination"] == "example.org:1"
    assert udp["program"] == OWN_NAME and udp["destination"] is None and udp["sent_bytes"] is None


async def test_a_ping_is_found(tunnel):
    try:
        ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    except PermissionError:  # net.ipv4.ping_group_range is closed: then ping has a raw socket, without owner
        ping = None
    number = 0
    if ping is not None:
        ping.bind(("127.0.0.1", 0))
        number = ping.getsockname()[1]
    listed = await FlowPrograms().of(await tunnel([FlowEnds("icmp", LOOPBACK, number)]))
    assert listed["flows"][0]["program"] == (OWN_NAME if ping is not None else None)
    if ping is not None:
        ping.close()


async def test_without_a_tunnel_there_are_no_flows():
    assert await FlowPrograms().of(None) == {"flows": [], "left_out": 0}


def test_descriptors_are_searched_for_new_sockets_only(tmp_path, monkeypatch):
    """What a search costs is bounded, and it is not repeated for sockets that are known."""
    for pid in (7, 8):
        fd = tmp_path / str(pid) / "fd"
        fd.mkdir(parents=True)
        (fd.parent / "comm").write_text("evil\x1b[2J" + "x" * 100 + "\n")
        (fd / "3").symlink_to(f"socket:[{pid}00]")
    monkeypatch.setattr(socket_owners, "SEARCH_INTERVAL", 0.0)
    owners = SocketOwners(tmp_path)
    assert owners._processes({700, 0}) == {700: 7}
    monkeypatch.setattr(SocketOwners, "_search", None)  # not called: it is known
    assert owners._processes({700}) == {700: 7}
    monkeypatch.undo()
    monkeypatch.setattr(socket_owners, "SEARCH_INTERVAL", 0.0)
    assert owners._processes({800}) == {800: 8}
    name = owners._name_of(8)
    assert name is not None and len(name) == socket_owners.MAX_NAME and "\x1b" not in name
    monkeypatch.setattr(socket_owners, "MAX_PROCESSES", 1)
    assert owners._processes({700, 800}) == {800: 8}


HANDS_OVER = """
import os, socket, sys, time
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sys.stdin.readline()
if os.fork() == 0:
    open("/proc/self/comm", "w").write("heir")
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_a_socket_that_another_process_has_inherited_is_its_own(monkeypatch):
    """As `ssh -f` does: the process that has connected ends, and its number may be used again."""
    monkeypatch.setattr(socket_owners, "SEARCH_INTERVAL", 0.0)
    owners = SocketOwners()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-c", HANDS_OVER, str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None and process.stdout is not None
            accepted, peer = listener.accept()
            with accepted:
                end = LocalEnd(socket.IPPROTO_TCP, LOOPBACK, peer[1], LOOPBACK, port)
                assert owners.owners([end])[end].pid == process.pid
                process.stdin.write(b"\n")
                process.stdin.flush()
                heir = int(process.stdout.readline())
                process.wait(60)
                found = owners.owners([end])[end]
                assert (found.pid, found.program) == (heir, "heir")


def test_the_number_of_a_process_that_has_ended_names_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(socket_owners, "SEARCH_INTERVAL", 0.0)
    descriptors = tmp_path / "7" / "fd"
    descriptors.mkdir(parents=True)
    (descriptors / "3").symlink_to("socket:[700]")
    owners = SocketOwners(tmp_path)
    assert owners._processes({700}) == {700: 7}
    (descriptors / "3").unlink()
    (descriptors / "3").symlink_to("socket:[900]")
    assert owners._processes({700}) == {}


FLOW = FlowStatus(
    kind="tcp", port=40000, program="curl", pid=1, user=1234, destination="192.0.2.7:443", sent_bytes=1,
    received_bytes=2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("user", "sees"),
    [(0, True), (os.geteuid(), True), (1234, True), (1235, False)],
)
def test_destinations_are_for_root_and_for_who_owns_the_flow(user, sees):
    told = as_seen_by(Peer(1, user, 9, frozenset()), FlowList(flows=[FLOW], left_out=3))
    assert told["left_out"] == 3
    assert told["flows"] == [FLOW if sees else {**FLOW, "destination": None}]
    assert as_seen_by(None, FlowList(flows=[FLOW], left_out=0))["flows"][0]["destination"] is None


async def test_the_route_answers_what_is_documented(serve_daemon, tmp_path):
    async with serve_daemon() as daemon:
        daemon.open_flows = [FLOW]
        answer = await asyncio.to_thread(requests.ask, str(tmp_path / "control.sock"), "GET", "/v1/flows")
    assert json.loads(answer.body) == {"flows": [FLOW], "left_out": 0}
    text = (Path(__file__).parents[3] / "docs" / "CONTROL.md").read_text()
    for key in typing.get_type_hints(FlowStatus):
        assert f"`{key}`" in text
