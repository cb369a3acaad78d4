"""Policies in a real kernel: each lets pass exactly what it names, whatever road a program chooses."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lab import Lab
from lab.host_tunnel import HostTunnel
from lab.topology import CLIENT, CLIENT_LAN, LAN

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import Desired, Host, HostState, TrafficPolicy
from halftunnel_vpn.host.kernel import nft
from halftunnel_vpn.host.kernel.ruleset import alone
from halftunnel_vpn.host.kernel.traffic_policy import LAN_NETWORKS, Opening
from halftunnel_vpn.tun import TunDevice

pytestmark = pytest.mark.root

MARK = 0x4854
PROGRAM_MARK = 0x55
PUBLIC, PUBLIC6 = "198.51.100.2", "2001:db8:100::2"
LAN_HOST, LAN_HOST6 = "192.168.77.53", "fd77:3::53"
ELSEWHERE = "203.0.113.9"
DEVICES = ("road-a", "road-b", "lan0")
ICMP_ECHO, ICMP6_ECHO = 8, 128


class Wire:
    """Every IP packet that leaves through one of the physical devices, as the device gets it."""

    def __init__(self) -> None:
        self._taps = []
        for device in DEVICES:
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(3))  # ETH_P_ALL
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            tap.bind((device, 3))
            tap.setblocking(False)
            self._taps.append(tap)

    def close(self) -> None:
        for tap in self._taps:
            tap.close()

    def left(self) -> set[str]:
        """What has left since the last call: ``PROTOCOL DESTINATION PORT``; neighbour discovery excepted."""
        found = set()
        for tap in self._taps:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet, (_, protocol, kind, *_) = tap.recvfrom(65536)
                    if kind == socket.PACKET_OUTGOING and protocol in (0x0800, 0x86DD):
                        found.add(described(packet))
        return found - {"neighbours"}


def described(packet: bytes) -> str:
    if packet[0] >> 4 == 4:
        header, number, destination = (packet[0] & 15) * 4, packet[9], socket.inet_ntoa(packet[16:20])
        if struct.unpack_from("!H", packet, 6)[0] & 0x1FFF:
            return f"fragment {destination}"
    else:
        header, number, destination = 40, packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
        if number == 58 and 133 <= packet[40] <= 137:
            return "neighbours"
        if number == 0:
            return "neighbours"  # MLD: the kernel tells, on its own time, which groups it has joined
    name = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}.get(number, str(number))
    port = f" {struct.unpack_from('!H', packet, header + 2)[0]}" if name in ("tcp", "udp") else ""
    return f"{name} {destination}{port}"


def udp(
    address: str, port: int, *, device: str = "", mark: int = 0, source_port: int = 0, size: int = 5
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if device:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if mark:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source_port:
            sender.bind(("", source_port))
        with contextlib.suppress(OSError):  # the kernel says at once that it is refused
            sender.sendto(b"x" * size, (address, port))


def tcp(address: str, port: int, *, device: str = "", mark: int = 0) -> int:
    """The error that the connection meets within some time; 0 when it meets none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as connection:
        connection.setblocking(False)
        if device:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if mark:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        code = connection.connect_ex((address, port))
        if code != errno.EINPROGRESS:
            return code
        select.select([], [connection], [], 0.05)
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def raw(address: str, protocol: int, payload: bytes, *, device: str = "road-a") -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, protocol) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        with contextlib.suppress(OSError):
            sender.sendto(payload, (address, 0))


def late_fragment() -> None:
    """A hand-made later fragment, on a socket that conntrack does not defragment (IP_NODEFRAG)."""
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 7, 100, 64, 17, 0, bytes(4), socket.inet_aton(PUBLIC))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"road-a")
        sender.setsockopt(socket.IPPROTO_IP, 22, 1)
        with contextlib.suppress(OSError):
            sender.sendto(header + b"y" * 64, (PUBLIC, 0))


TRAFFIC: dict[str, tuple[Callable[[], object], set[str]]] = {
    "a program": (lambda: udp(PUBLIC, 9), {f"udp {PUBLIC} 9"}),
    "a connection": (lambda: tcp(PUBLIC, 80), {f"tcp {PUBLIC} 80"}),
    "a connection, IPv6": (lambda: tcp(PUBLIC6, 80), {f"tcp {PUBLIC6} 80"}),
    "bound to a device": (lambda: udp(PUBLIC, 10, device="road-b"), {f"udp {PUBLIC} 10"}),
    "bound to a device, IPv6": (lambda: udp(PUBLIC6, 10, device="road-a"), {f"udp {PUBLIC6} 10"}),
    "ping": (lambda: raw(PUBLIC, 1, bytes([ICMP_ECHO]) + bytes(7)), {f"icmp {PUBLIC}"}),
    "ping, IPv6": (lambda: raw(PUBLIC6, 58, bytes([ICMP6_ECHO]) + bytes(7)), {f"icmpv6 {PUBLIC6}"}),
    "some other protocol": (lambda: raw(PUBLIC, 47, bytes(8)), {f"47 {PUBLIC}"}),
    "in fragments": (
        lambda: udp(PUBLIC, 11, device="road-a", size=3000),
        {f"udp {PUBLIC} 11", f"fragment {PUBLIC}"},
    ),
    "a late fragment": (late_fragment, {f"fragment {PUBLIC}"}),
    "multicast": (lambda: udp("233.252.0.1", 12, device="road-a"), {"udp 233.252.0.1 12"}),
    "a public resolver": (lambda: udp(PUBLIC, 53), {f"udp {PUBLIC} 53"}),
    "another network": (lambda: udp(ELSEWHERE, 13), {f"udp {ELSEWHERE} 13"}),
    "the LAN": (lambda: udp(LAN_HOST, 14), {f"udp {LAN_HOST} 14"}),
    "the LAN, IPv6": (lambda: udp(LAN_HOST6, 14), {f"udp {LAN_HOST6} 14"}),
    "the LAN's multicast": (lambda: udp("224.0.0.251", 5353, device="lan0"), {"udp 224.0.0.251 5353"}),
    "the LAN's resolver": (lambda: udp(LAN_HOST, 53), {f"udp {LAN_HOST} 53"}),
    "DHCP": (
        lambda: udp("255.255.255.255", 67, device="lan0", source_port=68),
        {"udp 255.255.255.255 67"},
    ),
    "a leg": (lambda: tcp(PUBLIC, 8443, mark=MARK), {f"tcp {PUBLIC} 8443"}),
    "ours, to another port": (lambda: tcp(PUBLIC, 22, mark=MARK), {f"tcp {PUBLIC} 22"}),
    "ours, by UDP": (lambda: udp(PUBLIC, 8443, mark=MARK), {f"udp {PUBLIC} 8443"}),
    "a road's name": (lambda: udp("198.51.100.77", 53, mark=MARK), {"udp 198.51.100.77 53"}),
    "an excluded program": (lambda: udp(PUBLIC, 15, mark=PROGRAM_MARK), {f"udp {PUBLIC} 15"}),
    "its names": (lambda: udp("198.51.100.78", 53, mark=PROGRAM_MARK), {"udp 198.51.100.78 53"}),
}
ALWAYS = {"DHCP"}
LEGS = {"a leg", "a road's name"}
NEAR = {"the LAN", "the LAN, IPv6", "the LAN's multicast"}
BASE = TrafficPolicy(own_ports=(443, 8443))
POLICIES = {
    "locked down": (TrafficPolicy(), ALWAYS),
    "connecting": (BASE, ALWAYS | LEGS),
    "with the LAN": (replace(BASE, lan=LAN_NETWORKS), ALWAYS | LEGS | NEAR),
    "an excluded network": (replace(BASE, excluded=("203.0.113.0/24",)), ALWAYS | LEGS | {"another network"}),
    "an excluded program": (
        replace(BASE, pass_marks=(PROGRAM_MARK,)),
        ALWAYS | LEGS | {"an excluded program", "its names"},
    ),
    "a portal": (
        replace(
            BASE,
            openings=(
                Opening(protocol="tcp", ports=(80,)),
                Opening(networks=(f"{LAN_HOST}/32",), protocol="udp", ports=(53,)),
            ),
        ),
        ALWAYS | LEGS | {"a connection", "a connection, IPv6", "the LAN's resolver"},
    ),
    "one network guarded": (
        replace(BASE, protect=("203.0.113.0/24",), intercept_dns=False),
        set(TRAFFIC) - {"another network"},
    ),
}


@pytest.fixture
def wire(client: Lab) -> Iterator[Wire]:
    """The client's roads are warm: their routers' hardware addresses are known."""
    client.run(CLIENT, ["ip", "route", "add", PUBLIC, "via", "10.77.2.1", "dev", "road-b", "metric", "50"])
    for address in ("10.77.1.1", "10.77.2.1", "fd77:1::1", LAN_HOST, LAN_HOST6):
        client.run(CLIENT, ["ping", "-c1", "-W2", address])
    tapped = Wire()
    yield tapped
    tapped.close()


def test_without_a_policy_all_of_it_leaves(wire: Wire) -> None:
    """So the list of kinds below means something."""
    for send, _ in TRAFFIC.values():
        send()
    assert gather(wire, set(TRAFFIC)) == set().union(*(expected for _, expected in TRAFFIC.values()))


def test_each_policy_lets_pass_what_it_names_and_nothing_else(wire: Wire) -> None:
    for name, (policy, passing) in POLICIES.items():
        nft.replace(nft.render(alone(policy)))
        wire.left()
        for send, _ in TRAFFIC.values():
            send()
        expected = set().union(*(TRAFFIC[kind][1] for kind in passing))
        assert gather(wire, passing) == expected, name


def gather(wire: Wire, kinds: set[str]) -> set[str]:
    """What has left, once everything of these kinds has, and a moment longer."""
    expected = set().union(*(TRAFFIC[kind][1] for kind in kinds))
    found: set[str] = set()
    deadline = time.monotonic() + 30
    while not expected <= found and time.monotonic() < deadline:
        found |= wire.left()
    time.sleep(0.05)
    return found | wire.left()


def test_who_is_refused_knows_at_once(wire: Wire) -> None:
    nft.replace(nft.render(alone(BASE)))
    assert tcp(PUBLIC, 80) == tcp(PUBLIC6, 80) == errno.ECONNREFUSED
    assert tcp(PUBLIC, 80, device="road-b") == errno.ECONNREFUSED
    assert tcp("127.0.0.1", 9) == errno.ECONNREFUSED  # by nobody: this host may speak to itself
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert tcp(*server.getsockname()) == 0
    assert wire.left() == set()


def test_what_the_host_forwards_is_held_back_as_well(client: Lab, wire: Wire) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    client.run(LAN, ["ip", "route", "add", "default", "via", CLIENT_LAN])
    program = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{PUBLIC}', 21))"
    client.python(LAN, program)
    deadline = time.monotonic() + 30
    while f"udp {PUBLIC} 21" not in wire.left():
        assert time.monotonic() < deadline
    nft.replace(nft.render(alone(replace(BASE, lan=LAN_NETWORKS))))
    client.python(LAN, program)
    assert not any(PUBLIC in packet for packet in wire.left())


def test_there_is_no_gap_when_one_table_follows_another(
    wire: Wire, device: TunDevice, lab: Lab, resolv_conf: Path
) -> None:
    state = HostState(addresses=("10.72.84.2/32",), dns=None)
    guard = Host(lab.directory / "state")
    tunnel = HostTunnel(
        state,
        lab.directory / "state",
        resolv_conf=resolv_conf,
        policy=replace(BASE, tunnel="htvpn0"),
        after=BASE,
    )
    guard.apply(Desired(None, BASE))
    over = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        with lab.inside(CLIENT):
            while not over.is_set():
                udp(PUBLIC, 22, device="road-b")
                udp(PUBLIC6, 22, device="road-a")
                sent += 2

    program = threading.Thread(target=flood)
    program.start()
    try:
        for _ in range(3):
            assert tunnel.apply() == []
            assert tunnel.verify() == []
            tunnel.cleanup()
            assert nft.listing() is not None
            guard.apply(Desired(None, replace(BASE, own_ports=())))
            guard.apply(Desired(None, BASE))
    finally:
        over.set()
        program.join()
    assert sent > 100
    assert not any(PUBLIC in packet or PUBLIC6 in packet for packet in wire.left())
    guard.apply(Desired())
    udp(PUBLIC, 22, device="road-b")
    assert f"udp {PUBLIC} 22" in wire.left()


def test_the_policy_is_remembered_until_it_is_lifted(
    client: Lab, snapshot: Callable[[], dict[str, str]]
) -> None:
    before = snapshot()
    guard = Host(client.directory / "state")
    assert guard.remembered() is None
    guard.apply(Desired(None, BASE))
    assert guard.remembered() == BASE
    assert "guard_output" in snapshot()["nft list ruleset"]
    guard.apply(Desired())
    assert guard.remembered() is None
    assert snapshot() == before
    guard.apply(Desired())


def test_a_policy_that_cannot_be_remembered_is_not_put_in_place(client: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=r"cannot be written .*make room or choose another state directory"):
        Host(tmp_path / "file").apply(Desired(None, BASE))
    assert nft.listing() is None
    (tmp_path / "protection.json").write_text("{")
    with pytest.raises(HostError, match=r"cannot be read .* run `htvpn repair --lift`"):
        Host(tmp_path).remembered()
