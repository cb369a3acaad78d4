"""Destinations that cannot be had: refused, unreachable, silent, denied. Programs see it for what it is."""

from __future__ import annotations

import errno
import select
import socket
import time

import pytest
from lab.topology import (
    CLIENT,
    EXIT_A,
    EXIT_A6,
    EXIT_B,
    LAN_RESOLVER,
    TARGET_ADDRESS,
    TARGET_ADDRESS6,
)
from scapy.all import TCP, IPv6, raw
from scapy.layers.inet6 import ICMPv6DestUnreach

pytestmark = pytest.mark.root

AT_ONCE = 6.0
"""Seconds: far less than the exit waits for a destination, or a kernel for an answer to a SYN."""

CLOSED_PORT = 81
COULD_NOT_CONNECT = 7
"""curl's exit code."""

NAT64_OF_EXIT_A = "64:ff9b::10.77.1.1"
SIX_TO_FOUR_OF_EXIT_A = "2002:a4d:101::1"


@pytest.fixture
def connect_error(rig):
    """Connects from the client and returns the errno and the seconds that it took.

    It uses the tunnel's device, since some of the addresses are also on the client's own links.
    """

    def attempt(address, port=80, timeout=20):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with rig.lab.inside(CLIENT), socket.socket(family) as sock:
            sock.settimeout(timeout)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"htvpn0")
            began = time.monotonic()
            code = sock.connect_ex((address, port))
            return code, time.monotonic() - began

    return attempt


@pytest.mark.parametrize("host", (TARGET_ADDRESS, f"[{TARGET_ADDRESS6}]"))
def test_curl_is_refused_at_once(rig, host):
    said = rig.client(
        f"curl -gsS -w '%{{exitcode}} %{{time_total}} %{{errormsg}}' http://{host}:{CLOSED_PORT}/",
        check=False,
    )
    code, seconds, message = said.splitlines()[-1].split(" ", 2)
    assert int(code) == COULD_NOT_CONNECT
    assert float(seconds) < AT_ONCE
    assert "Failed to connect" in message


@pytest.mark.parametrize("address", (TARGET_ADDRESS, TARGET_ADDRESS6))
def test_a_closed_port_is_refused_at_once(connect_error, address):
    code, seconds = connect_error(address, CLOSED_PORT)
    assert (errno.errorcode[code], seconds < AT_ONCE) == ("ECONNREFUSED", True)


@pytest.mark.parametrize("version", (4, 6))
def test_a_known_destination_that_fails_is_reset_and_refused_from_then_on(rig, ends, version):
    """Its SYN is answered before the exit has tried, so the first failure shows as a reset."""
    listener = ends.listen(version)
    ends.connect(listener)
    address = listener.getsockname()
    ends.accept(listener)
    listener.close()
    known = ends.unconnected(version)
    with pytest.raises(ConnectionResetError):  # of either: the reset may be there before connect() returns
        known.connect(address)
        known.recv(1)
    with pytest.raises(ConnectionRefusedError):
        ends.unconnected(version).connect(address)


@pytest.mark.parametrize("address", ("203.0.113.7", "2606:4700::7"))
def test_a_network_without_a_route_is_unreachable_at_once(connect_error, address):
    code, seconds = connect_error(address)
    assert (errno.errorcode[code], seconds < AT_ONCE) == ("ENETUNREACH", True)


@pytest.mark.parametrize("address", ("198.51.100.77", "2001:db8:100::77"))
def test_a_host_that_is_not_there_is_unreachable(connect_error, address):
    code, _ = connect_error(address)
    assert errno.errorcode[code] == "EHOSTUNREACH"


@pytest.mark.parametrize(
    "address",
    (
        EXIT_A,
        EXIT_B,
        LAN_RESOLVER,
        "169.254.169.254",
        "168.63.129.16",
        "100.64.0.1",
        EXIT_A6,
        "fd00:ec2::254",
        NAT64_OF_EXIT_A,
        SIX_TO_FOUR_OF_EXIT_A,
    ),
)
def test_a_denied_destination_is_an_error_at_once(connect_error, address):
    code, seconds = connect_error(address)
    # what Linux makes of "administratively prohibited" in ICMP and ICMPv6
    expected = "EACCES" if ":" in address else "EHOSTUNREACH"
    assert (errno.errorcode[code], seconds < AT_ONCE) == (expected, True)


@pytest.mark.parametrize("destination", (f"::ffff:{EXIT_A}", "::ffff:127.0.0.1", "::ffff:169.254.169.254"))
def test_a_denied_ipv4_address_in_the_clothes_of_ipv6_is_refused_on_the_wire(rig, destination):
    """The kernel would send such an address as IPv4: hand the TUN device the IP packet itself."""
    syn = IPv6(src="fd48:5456:504e::1", dst=destination) / TCP(sport=50000, dport=80, flags="S", seq=1)
    with rig.lab.inside(CLIENT), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
        wire.bind(("htvpn0", 0x86DD))
        wire.sendto(raw(syn), ("htvpn0", 0x86DD))
        deadline = time.monotonic() + AT_ONCE
        while select.select([wire], [], [], max(0.0, deadline - time.monotonic()))[0]:
            answer = IPv6(wire.recv(2000))
            if ICMPv6DestUnreach in answer:
                break
        assert answer[ICMPv6DestUnreach].code == 1  # administratively prohibited (RFC 4443 section 3.1)
        assert answer.src == syn.dst


def test_a_destination_that_stays_silent_ends_in_an_error(new_rig, eventually):
    """It takes the exit's own time-out, not that of the host's kernel."""
    with new_rig(server={"limits": {"dial_timeout": '"2s"'}}) as own:
        own.on_target(
            "nft 'add table inet silent; add chain inet silent i { type filter hook input priority 0; };"
            f" add rule inet silent i tcp dport {CLOSED_PORT} drop'"
        )
        with own.lab.inside(CLIENT), socket.socket() as sock:
            sock.settimeout(60)
            began = time.monotonic()
            code = sock.connect_ex((TARGET_ADDRESS, CLOSED_PORT))
            assert errno.errorcode[code] == "EHOSTUNREACH"
            assert 1.5 < time.monotonic() - began < 20
        # a SYN sent again just before the error came is a flow of its own, and ends in the same way
        eventually(lambda: own.tunnel.status()["flows"]["tcp"] == 0)
