"""Fake addresses: the client gets them at once, and the exit resolves the name when it is used."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator

import pytest
from lab.topology import CLIENT, EXIT_UPLINK, TARGET, TARGET_ADDRESS, TARGET_ADDRESS6

pytestmark = pytest.mark.root

FAKE = {4: ipaddress.ip_network("198.18.0.0/15"), 6: ipaddress.ip_network("fd48:5456:f00d::/96")}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
IP_RECVERR = 11

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def own(new_rig) -> Iterator:
    """A tunnel in fake-ip mode."""
    with new_rig(
        profile={"dns": {"mode": '"fake-ip"', "fake_exclude": '["real.target.test", "only4.target.test"]'}}
    ) as made:
        yield made


@pytest.fixture(scope="module")
def dig(own, dig_on) -> Callable:
    return dig_on(own)


@pytest.fixture
def fake(dig) -> Callable[[str, int], str]:
    """The fake address of a name."""

    def ask(name: str, version: int) -> str:
        (address,) = dig(f"{name} {'A' if version == 4 else 'AAAA'}").values
        assert ipaddress.ip_address(address) in FAKE[version]
        return address

    return ask


@contextlib.contextmanager
def udp_on(rig, host: str, version: int) -> Iterator[socket.socket]:
    with rig.lab.inside(host):
        sock = socket.socket(FAMILIES[version], socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(60)
        yield sock


def test_a_name_has_one_address_of_each_version_and_nobody_is_asked(own, fake, dig, asked_of_target):
    reply = dig("fresh.target.test A")
    ((_, ttl, _, address),) = reply.answers
    assert ipaddress.ip_address(address) in FAKE[4]
    assert ttl <= 10
    assert fake("fresh.target.test", 4) == address
    assert fake("fresh.target.test", 6) != fake("other.target.test", 6)
    assert not [line for line in asked_of_target(own.lab) if "fresh" in line]


@both_versions
def test_the_address_has_the_name(dig, fake, version):
    address = fake("www.target.test", version)
    assert dig(f"-x {address}").values == ["www.target.test."]


@both_versions
def test_a_connection_goes_to_the_name_at_the_exit(own, asked_of_target, version):
    url = "http://www.target.test/small.txt"
    said = own.client(f"curl -sS -{version} -w '%{{remote_ip}}' {url}")
    assert said.startswith("x" * 1000)
    assert ipaddress.ip_address(said[1000:]) in FAKE[version]
    assert f"udp {EXIT_UPLINK} www.target.test A" in asked_of_target(own.lab)


def test_a_connection_to_a_name_that_does_not_exist_fails_at_once(own):
    said = own.client("curl -sS -m 60 -w ' %{time_total}' http://nobody.target.test/", check=False)
    assert "Failed to connect" in said or "Couldn't connect" in said or "No route to host" in said
    assert float(said.split()[-1]) < 20


@both_versions
def test_ping_to_a_fake_address_is_answered(own, fake, version):
    address = fake("www.target.test", version)
    assert " 2 received" in own.client(f"ping -n -c 2 -i 0.1 -w 30 {address}")
    assert f"bytes from {address}" in own.client(f"ping -n -c 1 -w 30 -s 5000 {address}")


@both_versions
def test_datagrams_to_a_name_go_both_ways(own, fake, version):
    """The name has both versions at the exit, and the exit may choose either."""
    address = fake("target.test", version)
    with udp_on(own, TARGET, 6) as server, udp_on(own, CLIENT, version) as app:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 0))
        port = server.getsockname()[1]
        for number in range(5):
            app.sendto(b"question %d" % number, (address, port))
        for number in range(5):
            received, sender = server.recvfrom(100)
            assert received == b"question %d" % number
            server.sendto(b"answer %d" % number, sender)
        for number in range(5):
            received, source = app.recvfrom(100)
            assert received == b"answer %d" % number
            assert source[:2] == (address, port)


@both_versions
def test_a_closed_port_of_a_name_refuses(own, fake, version):
    with udp_on(own, CLIENT, version) as app:
        app.connect((fake("target.test", version), 9))
        app.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            app.recv(100)


def test_datagrams_to_a_name_that_does_not_exist_are_unreachable(own, fake):
    with udp_on(own, CLIENT, 4) as app:
        app.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        app.connect((fake("nobody-at-all.target.test", 4), 1234))
        app.send(b"anybody?")
        with pytest.raises(OSError) as caught:
            app.recv(100)
        assert caught.value.errno == errno.EHOSTUNREACH


def test_an_address_that_stands_for_no_name_is_prohibited(own):
    with udp_on(own, CLIENT, 4) as app:
        app.connect(("198.19.255.250", 1234))
        app.send(b"anybody?")
        with pytest.raises(OSError) as caught:
            app.recv(100)
        assert caught.value.errno == errno.EHOSTUNREACH


def test_an_excluded_domain_has_its_real_addresses(own, dig):
    assert dig("only4.target.test A").values == [TARGET_ADDRESS]
    assert len(own.client("curl -sS http://only4.target.test/small.txt")) == 1000


def test_other_types_are_asked_of_the_exits_resolver(dig):
    assert dig("who.test TXT").values == ['"target"']
    assert dig("www.target.test CNAME").values == ["web.target.test."]


def test_programs_get_the_fake_addresses(own):
    found = own.client("getent ahosts target.test")
    addresses = {ipaddress.ip_address(line.split()[0]) for line in found.splitlines()}
    assert {address.version for address in addresses} == {4, 6}
    assert all(address in FAKE[address.version] for address in addresses)
    assert TARGET_ADDRESS not in found and TARGET_ADDRESS6 not in found


def test_a_name_that_no_packet_can_carry_does_no_harm(own, fake):
    """It might be read as an address at the exit; what is sent to it is dropped and counted."""
    address = fake("looks-like.127.1", 4)
    with udp_on(own, CLIENT, 4) as app:
        app.sendto(b"where to?", (address, 1234))
    assert " 1 received" in own.client(f"ping -n -c 1 -w 30 {TARGET_ADDRESS}")
    assert own.dropped()["datagram-bad-name"] == 1
