"""UDP through the tunnel: sizes, segmentation offload, mapping and filtering, the end of idle flows."""

from __future__ import annotations

import json
import os
import socket
import struct
import time

import pytest
from lab.topology import EXIT_UPLINK, EXIT_UPLINK6, TARGET_ADDRESS, TARGET_ADDRESS6

pytestmark = pytest.mark.root

SECOND_ADDRESS, SECOND_ADDRESS6 = "198.51.100.3", "2001:db8:100::3"
UDP_SEGMENT = 103
UDP_GRO = 104

both_versions = pytest.mark.parametrize("address", [TARGET_ADDRESS, TARGET_ADDRESS6], ids=["IPv4", "IPv6"])


def version_of(address: str) -> int:
    return 6 if ":" in address else 4


@both_versions
@pytest.mark.parametrize("size", [0, 1, 1200, 1472, 9000, 65_000])
def test_datagrams_of_any_size_go_both_ways(ends, size, address):
    server = ends.server(address)
    app = ends.app(version_of(address), to=server)

    question = os.urandom(size)
    app.send(question)
    received, sender = server.recvfrom(65535)
    assert received == question
    assert sender[0] in (EXIT_UPLINK, EXIT_UPLINK6)

    answer = os.urandom(size)
    server.sendto(answer, sender)
    assert app.recv(65535) == answer


@pytest.mark.parametrize("direction", ["", "-R"], ids=["up", "down"])
def test_iperf3_loses_next_to_nothing_at_a_modest_rate(rig, direction):
    # a large buffer, so that no loss is iperf3's own when it is not scheduled for a while
    report = rig.client(f"iperf3 -J -u -b 20M -l 1200 -t 2 -w 400K -c {TARGET_ADDRESS} {direction}")
    total = json.loads(report)["end"]["sum"]
    assert total["packets"] > 3000
    assert total["lost_percent"] < 5


@both_versions
def test_what_a_program_sends_segmented_arrives_as_single_datagrams(ends, address):
    server = ends.server(address)
    app = ends.app(version_of(address), to=server)
    app.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)

    sent = os.urandom(40 * 1200 + 77)
    app.send(sent)

    received = [server.recv(65535) for _ in range(41)]
    assert {len(datagram) for datagram in received[:-1]} == {1200}
    assert len(received[-1]) == 77
    assert b"".join(received) == sent


@both_versions
def test_tiny_segments_are_cut_into_as_many_datagrams_as_were_sent(ends, address):
    server = ends.server(address)
    app = ends.app(version_of(address), to=server)
    app.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 9)

    sent = os.urandom(64 * 9)
    app.send(sent)

    assert [server.recv(65535) for _ in range(64)] == [sent[at : at + 9] for at in range(0, len(sent), 9)]


@both_versions
def test_answers_that_came_in_one_piece_are_single_datagrams_again(ends, address):
    server = ends.server(address)
    app = ends.app(version_of(address), to=server)
    app.send(b"go")
    _, sender = server.recvfrom(65535)

    server.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1300)
    sent = os.urandom(30 * 1300 + 5)
    server.sendto(sent, sender)

    received = [app.recv(65535) for _ in range(31)]
    assert {len(datagram) for datagram in received[:-1]} == {1300}
    assert b"".join(received) == sent


@both_versions
def test_a_program_that_wants_them_in_one_piece_gets_them_so(ends, address):
    server = ends.server(address)
    app = ends.app(version_of(address), to=server)
    app.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    app.send(b"go")
    _, sender = server.recvfrom(65535)

    server.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1300)
    sent = os.urandom(30 * 1300)
    server.sendto(sent, sender)

    received, ancillary, _, _ = app.recvmsg(65535, 64)
    assert received == sent
    ((_, kind, value),) = ancillary
    assert (kind, struct.unpack("=i", value)[0]) == (UDP_GRO, 1300)


@pytest.mark.parametrize(
    "addresses",
    [(TARGET_ADDRESS, SECOND_ADDRESS), (TARGET_ADDRESS6, SECOND_ADDRESS6)],
    ids=["IPv4", "IPv6"],
)
def test_every_destination_sees_one_port_and_anybody_may_answer_to_it(ends, second_address, addresses):
    one, other = ends.server(addresses[0]), ends.server(addresses[1])
    app = ends.app(version_of(addresses[0]))

    app.sendto(b"to one", one.getsockname())
    app.sendto(b"to other", other.getsockname())
    received, seen_by_one = one.recvfrom(100)
    assert received == b"to one"
    received, seen_by_other = other.recvfrom(100)
    assert received == b"to other"
    assert seen_by_one == seen_by_other

    stranger = ends.server(addresses[1])
    stranger.sendto(b"from one never asked", seen_by_one)
    received, source = app.recvfrom(100)
    assert received == b"from one never asked"
    assert source == stranger.getsockname()


def test_two_programs_have_two_ports(ends):
    server = ends.server()
    seen = []
    for _ in range(2):
        app = ends.app(to=server)
        app.send(b"hello")
        seen.append(server.recvfrom(100)[1])
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_one_socket_speaks_both_versions(ends):
    """A dual-stack socket is two local endpoints, one for each version."""
    four, six = ends.server(TARGET_ADDRESS), ends.server(TARGET_ADDRESS6)
    app = ends.app(6)
    app.sendto(b"four", (f"::ffff:{TARGET_ADDRESS}", four.getsockname()[1]))
    app.sendto(b"six", six.getsockname())

    for server, word in ((four, b"four"), (six, b"six")):
        received, sender = server.recvfrom(100)
        assert received == word
        server.sendto(b"answer to " + word, sender)
    assert {app.recv(100), app.recv(100)} == {b"answer to four", b"answer to six"}


def test_many_local_ports_at_once(ends):
    server = ends.server()
    apps = [ends.app(to=server) for _ in range(200)]
    for number, app in enumerate(apps):
        app.send(b"%d" % number)
    for _ in apps:
        received, sender = server.recvfrom(100)
        server.sendto(b"back " + received, sender)
    for number, app in enumerate(apps):
        assert app.recv(100) == b"back %d" % number


def test_idle_flows_are_forgotten_at_both_ends(new_rig, ends_of):
    with new_rig(profile={"limits": {"udp_idle": "5"}}) as own, ends_of(own.lab) as ends:
        streams_before = own.exit_number("halftunnel_streams")
        server = ends.server()
        app = ends.app(to=server)
        app.send(b"one")
        _, first = server.recvfrom(100)
        assert own.tunnel.status()["flows"]["udp"] >= 1
        assert own.exit_number("halftunnel_streams") > streams_before

        began = time.monotonic()
        while own.tunnel.status()["flows"]["udp"]:
            assert time.monotonic() - began < 60
        assert time.monotonic() - began > 3
        while own.exit_number("halftunnel_streams") > streams_before:
            assert time.monotonic() - began < 60
        assert own.tunnel.status()["flows"] == {"tcp": 0, "udp": 0, "icmp": 0}

        app.send(b"two")
        received, second = server.recvfrom(100)
        assert received == b"two"
        assert second != first
