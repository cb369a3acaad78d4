"""ICMP errors on a socket's error queue: real ones of loopback, and every kind as the kernel tells it."""

from __future__ import annotations

import errno
import select
import socket
import struct

import pytest

from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.server import icmp_errors

LOCAL, ICMP, ICMP6 = 1, 2, 3
K = IcmpErrorKind


@pytest.fixture(params=["127.0.0.1", "::1"])
def sender(request):
    """A UDP socket that asks for errors, and its address."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind((request.param, 0))
        icmp_errors.enable(sock)
        yield sock, request.param


def closed_port(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        return sock.getsockname()[1]


def wait_for_error(sock):
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(5000)[0][1] & select.POLLERR


def test_a_closed_port_tells_destination_offender_and_what_was_sent(sender):
    sock, address = sender
    port = closed_port(address)
    sock.sendto(b"the beginning", (address, port))
    wait_for_error(sock)
    packed = socket.inet_pton(sock.family, address)
    assert icmp_errors.read(sock) == [
        icmp_errors.SocketError(K.PORT_UNREACHABLE, packed, packed, port, 0, b"the beginning")
    ]
    assert icmp_errors.read(sock) == [], "reading takes them off the queue"


def test_one_call_reads_a_bounded_number(sender):
    sock, address = sender
    port = closed_port(address)
    sent = 0
    while sent < icmp_errors.MAX_ERRORS_PER_WAKE + 5:
        try:
            sock.sendto(b"x", (address, port))
            sent += 1
        except ConnectionRefusedError:
            pass  # an earlier error surfaces; it stays on the queue
    wait_for_error(sock)
    first = icmp_errors.read(sock)
    assert len(first) <= icmp_errors.MAX_ERRORS_PER_WAKE
    assert len(first) + len(icmp_errors.read(sock)) <= sent


def extended(number=0, origin=ICMP, type_=3, code=0, info=0, offender=b""):
    """A struct sock_extended_err as the kernel hands it over, with the offender's address behind it."""
    return struct.pack("=IBBBBII", number, origin, type_, code, 0, info, 0) + offender


V4 = struct.pack("=H2s4s8s", socket.AF_INET, b"\0\0", b"\xc0\x00\x02\x01", bytes(8))
V6 = struct.pack("=H2sI16sI", socket.AF_INET6, b"\0\0", 0, bytes(range(16)), 0)


@pytest.mark.parametrize(
    ("type_", "code", "kind"),
    [
        (3, 0, K.NET_UNREACHABLE), (3, 1, K.HOST_UNREACHABLE), (3, 2, K.PROTOCOL_UNREACHABLE),
        (3, 3, K.PORT_UNREACHABLE), (3, 9, K.ADMIN_PROHIBITED), (3, 10, K.ADMIN_PROHIBITED),
        (3, 13, K.ADMIN_PROHIBITED), (11, 0, K.TIME_EXCEEDED),
    ],
)  # fmt: skip
def test_every_icmp_error(type_, code, kind):
    error = icmp_errors._decode(
        socket.AF_INET, b"sent", extended(0, ICMP, type_, code, offender=V4), ("198.51.100.7", 53)
    )
    assert error == (kind, b"\xc0\x00\x02\x01", b"\xc6\x33\x64\x07", 53, 0, b"sent")


@pytest.mark.parametrize(
    ("type_", "code", "kind"),
    [
        (1, 0, K.NET_UNREACHABLE), (1, 1, K.ADMIN_PROHIBITED), (1, 3, K.HOST_UNREACHABLE),
        (1, 4, K.PORT_UNREACHABLE), (1, 5, K.ADMIN_PROHIBITED), (3, 0, K.TIME_EXCEEDED),
        (4, 1, K.PROTOCOL_UNREACHABLE),
    ],
)  # fmt: skip
def test_every_icmpv6_error(type_, code, kind):
    error = icmp_errors._decode(
        socket.AF_INET6, b"sent", extended(0, ICMP6, type_, code, offender=V6), ("2001:db8::7%eth0", 53)
    )
    assert error == (kind, bytes(range(16)), socket.inet_pton(socket.AF_INET6, "2001:db8::7"), 53, 0, b"sent")


@pytest.mark.parametrize(
    ("origin", "type_", "code", "number"),
    [(ICMP, 3, 4, errno.EMSGSIZE), (ICMP6, 2, 0, errno.EMSGSIZE), (LOCAL, 0, 0, errno.EMSGSIZE)],
)
@pytest.mark.parametrize(("info", "mtu"), [(1280, 1280), (0, 0), (1 << 20, 0xFFFF)])
def test_a_packet_too_big_tells_the_mtu(origin, type_, code, number, info, mtu):
    data = extended(number, origin, type_, code, info)
    error = icmp_errors._decode(socket.AF_INET, b"", data, ("198.51.100.7", 53))
    assert (error.kind, error.mtu, error.offender) == (K.PACKET_TOO_BIG, mtu, b"")


@pytest.mark.parametrize(
    "data",
    [
        extended(0, ICMP, 12, 0),
        extended(0, ICMP, 3, 99),
        extended(0, ICMP6, 4, 0),
        extended(errno.EHOSTUNREACH, LOCAL, 0, 0),
        extended(0, 0, 0, 0),
    ],
)
def test_what_means_nothing_to_a_client_is_left_out(data):
    assert icmp_errors._decode(socket.AF_INET, b"", data, ("198.51.100.7", 53)) is None


@pytest.mark.parametrize("offender", [b"", V4[:7], struct.pack("=H14s", socket.AF_UNIX, bytes(14)), V6[:23]])
def test_an_offender_that_is_not_told_is_none(offender):
    error = icmp_errors._decode(socket.AF_INET, b"", extended(offender=offender), ("198.51.100.7", 53))
    assert error.offender == b""


def test_an_address_of_another_family_belongs_to_the_offender_all_the_same():
    error = icmp_errors._decode(socket.AF_INET, b"", extended(offender=V6), ("198.51.100.7", 53))
    assert error.offender == bytes(range(16))
