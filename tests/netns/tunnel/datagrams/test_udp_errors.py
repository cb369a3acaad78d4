"""The errors that a program on the client gets when its UDP datagrams do not arrive."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct

import pytest
from lab.topology import TARGET_ADDRESS, TARGET_ADDRESS6

pytestmark = pytest.mark.root

FAR = {4: "198.51.100.194", 6: "2001:db8:100:0:2::2"}
MIDDLE = {4: "198.51.100.130", 6: "2001:db8:100:0:1::2"}
NARROW_MTU = 1280
CLOSED_PORT = 9

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
PMTUDISC_DO = 2
IP_RECVERR, IPV6_RECVERR = 11, 25
UDP_SEGMENT = 103
EXTENDED_ERROR = struct.Struct("=IBBBBII")

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
TARGETS = {4: TARGET_ADDRESS, 6: TARGET_ADDRESS6}


def error_of(app: socket.socket) -> int | None:
    """The error that a program gets which waits for an answer."""
    with pytest.raises(OSError) as caught:
        app.recv(100)
    return caught.value.errno


def want_details(app: socket.socket) -> None:
    if app.family == socket.AF_INET:
        app.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    else:
        app.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)


def details_of(app: socket.socket) -> tuple[int, int, str, str]:
    """The next error: its number, its MTU, who sent it, and about which destination."""
    _, ((_, _, data),), _, destination = app.recvmsg(100, 512, socket.MSG_ERRQUEUE)
    number, _, _, _, _, info, _ = EXTENDED_ERROR.unpack_from(data)
    at = EXTENDED_ERROR.size + (4 if app.family == socket.AF_INET else 8)
    offender = data[at : at + (4 if app.family == socket.AF_INET else 16)]
    return number, info, str(ipaddress.ip_address(offender)), destination[0]


@both_versions
def test_a_closed_port_refuses(ends, version):
    app = ends.app(version, to=(TARGETS[version], CLOSED_PORT))
    app.send(b"anybody there?")
    assert error_of(app) == errno.ECONNREFUSED


@both_versions
def test_it_is_told_once_for_each_datagram_and_by_whom(ends, version):
    app = ends.app(version)
    want_details(app)
    for _ in range(2):
        app.sendto(b"anybody there?", (TARGETS[version], CLOSED_PORT))
        assert error_of(app) == errno.ECONNREFUSED
        assert details_of(app) == (errno.ECONNREFUSED, 0, TARGETS[version], TARGETS[version])


@both_versions
def test_a_closed_port_does_not_harm_the_conversation_with_an_open_one(ends, version):
    server = ends.server(TARGETS[version])
    app = ends.app(version)
    for number in range(20):
        app.sendto(b"nobody", (TARGETS[version], CLOSED_PORT))
        app.sendto(b"%d" % number, server.getsockname())
        received, sender = server.recvfrom(100)
        assert received == b"%d" % number
        server.sendto(b"answer to " + received, sender)
        assert app.recv(100) == b"answer to " + received


@pytest.mark.parametrize(
    ("address", "told"), [("10.1.2.3", errno.EHOSTUNREACH), ("fd00:1::3", errno.EACCES)], ids=["IPv4", "IPv6"]
)
def test_a_destination_that_the_exit_denies_is_prohibited(ends, address, told):
    """Linux turns "communication administratively prohibited" into these numbers."""
    app = ends.app(6 if ":" in address else 4, to=(address, 1234))
    app.send(b"let me in")
    assert error_of(app) == told


@pytest.mark.parametrize("address", ["9.9.9.9", "2620:fe::fe"], ids=["IPv4", "IPv6"])
def test_a_network_to_which_the_exit_has_no_route_is_unreachable(ends, address):
    app = ends.app(6 if ":" in address else 4, to=(address, 1234))
    want_details(app)  # without, Linux tells a program of no error that may pass
    app.send(b"hello?")
    assert error_of(app) == errno.ENETUNREACH


def test_a_host_that_does_not_exist_is_unreachable(ends):
    app = ends.app(to=("198.51.100.77", 1234))
    want_details(app)
    app.send(b"hello?")
    assert error_of(app) == errno.EHOSTUNREACH


@both_versions
def test_a_hop_limit_that_runs_out_is_told_with_the_router(ends, road_beyond, version):
    app = ends.app(version)
    want_details(app)
    if version == 4:
        app.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
    else:
        app.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 2)
    app.sendto(b"how far?", (FAR[version], 1234))
    assert error_of(app) == errno.EHOSTUNREACH
    assert details_of(app) == (errno.EHOSTUNREACH, 0, MIDDLE[version], FAR[version])


def forbid_fragments(app: socket.socket) -> None:
    if app.family == socket.AF_INET:
        app.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
    else:
        app.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO)


@both_versions
def test_a_datagram_too_long_for_a_link_behind_the_exit_is_told_the_mtu(ends, new_far_address, version):
    far = new_far_address(version)
    app = ends.app(version, to=(far, 1234))
    want_details(app)
    forbid_fragments(app)
    app.send(bytes(1400))
    assert error_of(app) == errno.EMSGSIZE
    assert details_of(app) == (errno.EMSGSIZE, NARROW_MTU, MIDDLE[version], far)

    # the kernel has learnt it
    with pytest.raises(OSError) as caught:
        app.send(bytes(1400))
    assert caught.value.errno == errno.EMSGSIZE


@both_versions
def test_what_is_too_long_for_a_link_behind_the_exit_arrives_in_fragments(ends, new_far_address, version):
    """Both kernels learn the MTU from the datagram that is lost; the client's cuts what is sent after it."""
    server = ends.server_at_the_far_end(new_far_address(version))
    app = ends.app(version, to=server)
    app.send(bytes(1400))
    assert error_of(app) == errno.EMSGSIZE

    for size in (1400, 9000, 65_000):
        question = os.urandom(size)
        app.send(question)
        received, sender = server.recvfrom(65535)
        assert received == question
        server.sendto(question[::-1], sender)
        assert app.recv(65535) == question[::-1]


@both_versions
def test_segments_too_long_for_a_link_behind_the_exit_arrive_all_the_same(
    rig, ends, new_far_address, version
):
    """The exit's kernel segments nothing beyond an MTU that it knows, so the exit has to."""
    server = ends.server_at_the_far_end(new_far_address(version))
    said = rig.on_exit(f"ping -n -c 1 -M do -s 1400 {server.getsockname()[0]}", check=False)
    assert f"mtu={NARROW_MTU}" in said.replace(" ", "")

    app = ends.app(version, to=server)
    app.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1380)
    sent = os.urandom(10 * 1380 + 5)
    app.send(sent)
    assert [server.recv(65535) for _ in range(11)] == [
        sent[at : at + 1380] for at in range(0, len(sent), 1380)
    ]


@both_versions
def test_the_longest_datagram_that_fits_a_record_arrives_and_a_longer_one_is_refused(rig, ends, version):
    server = ends.server(TARGETS[version])
    app = ends.app(version, to=server)
    longest = 65_474 if version == 4 else 65_462
    app.send(bytes(longest))
    assert len(server.recv(65535)) == longest

    before = rig.dropped().get("udp-too-long", 0)
    app.send(bytes(longest + 1))
    assert error_of(app) == errno.EMSGSIZE
    assert rig.dropped()["udp-too-long"] == before + 1
