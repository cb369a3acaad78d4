"""Which way a client's packets go while the tunnel's state is applied: asked of the kernel, and tried."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from lab import Lab, start_lan_resolver
from lab.host_tunnel import HostTunnel
from lab.topology import (
    CLIENT,
    CLIENT_A,
    CLIENT_LAN,
    EXIT,
    LAN,
    LAN_RESOLVER,
    LAN_RESOLVER6,
    TARGET_ADDRESS,
    TARGET_ADDRESS6,
)
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6

from halftunnel_vpn.host import HostState
from halftunnel_vpn.tun import TunDevice

pytestmark = pytest.mark.root

Network = Callable[[HostState], HostTunnel]

TUN_ADDRESS, TUN_ADDRESS6 = "10.72.84.2", "fd72:84::2"
ROUTE_ALL = HostState(addresses=(f"{TUN_ADDRESS}/32", f"{TUN_ADDRESS6}/128"))
SPLIT = replace(ROUTE_ALL, include=("198.51.100.0/24", "2001:db8:100::/64"))
MARK = "mark 0x4854"
DNS = "ipproto udp dport 53"
TUNNEL, ROAD, HOME, NOWHERE = "htvpn0", "road-a", "lan0", "nowhere"


@pytest.fixture
def way(client: Lab) -> Callable[[str], str]:
    """The device that the kernel chooses, or that there is none."""

    def ask(question: str) -> str:
        family = ["-6"] if ":" in question.split()[0] else []
        asked = client.run(CLIENT, ["ip", *family, "route", "get", *question.split()], check=False)
        words = asked.stdout.split()
        return words[words.index("dev") + 1] if asked.returncode == 0 else NOWHERE

    return ask


def test_route_all(client: Lab, device: TunDevice, network: Network, way: Callable[[str], str]) -> None:
    client.run(CLIENT, ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
    network(replace(ROUTE_ALL, exclude=("203.0.113.0/24", "2001:db8:9::/48"))).apply()
    expected = {
        TARGET_ADDRESS: TUNNEL,
        TARGET_ADDRESS6: TUNNEL,
        "192.0.2.1": TUNNEL,
        f"{TARGET_ADDRESS} {MARK}": ROAD,
        f"{TARGET_ADDRESS6} {MARK}": ROAD,
        f"{TARGET_ADDRESS} {DNS}": TUNNEL,
        f"{TARGET_ADDRESS} {DNS} {MARK}": ROAD,
        LAN_RESOLVER: HOME,
        LAN_RESOLVER6: HOME,
        f"{LAN_RESOLVER} {DNS}": TUNNEL,
        f"{LAN_RESOLVER6} {DNS}": TUNNEL,
        f"{LAN_RESOLVER} ipproto tcp dport 53": TUNNEL,
        f"{LAN_RESOLVER} ipproto tcp dport 80": HOME,
        f"{LAN_RESOLVER} ipproto icmp": HOME,
        f"{LAN_RESOLVER} {DNS} {MARK}": HOME,
        f"127.0.0.53 {DNS}": "lo",
        f"{CLIENT_LAN} {DNS}": "lo",
        "203.0.113.5": ROAD,
        f"203.0.113.5 {DNS}": TUNNEL,
        "2001:db8:9::5": ROAD,
        f"{TARGET_ADDRESS} from 192.168.77.99 iif lan0": TUNNEL,
        f"{TARGET_ADDRESS} oif road-a": ROAD,  # the kernel takes it for on-link, as it does in any table
    }
    assert {question: way(question) for question in expected} == expected


def test_some_networks_only(device: TunDevice, network: Network, way: Callable[[str], str]) -> None:
    network(SPLIT).apply()
    expected = {
        TARGET_ADDRESS: TUNNEL,
        TARGET_ADDRESS6: TUNNEL,
        f"{TARGET_ADDRESS} {MARK}": ROAD,
        "192.0.2.1": ROAD,
        "2001:db8:1::1": ROAD,
        f"192.0.2.1 {DNS}": TUNNEL,
        f"2001:db8:1::1 {DNS}": TUNNEL,
        f"{LAN_RESOLVER} {DNS}": TUNNEL,
        f"192.0.2.1 {DNS} {MARK}": ROAD,
        LAN_RESOLVER: HOME,
    }
    assert {question: way(question) for question in expected} == expected


def test_a_lan_inside_an_included_network_stays_a_lan(
    device: TunDevice, network: Network, way: Callable[[str], str]
) -> None:
    state = replace(SPLIT, include=("192.168.0.0/16", "192.168.77.80/32", "192.168.77.128/25"))
    network(state).apply()
    assert way("192.168.1.1") == TUNNEL
    assert way(LAN_RESOLVER) == HOME, "main has a longer prefix"
    assert way("192.168.77.80") == TUNNEL, "here the tunnel has the longer one"
    assert way("192.168.77.200") == TUNNEL


def test_without_interception_a_lan_resolver_is_asked_at_home(
    device: TunDevice, network: Network, way: Callable[[str], str]
) -> None:
    network(replace(SPLIT, intercept_dns=False)).apply()
    assert way(f"{LAN_RESOLVER} {DNS}") == HOME
    assert way(f"192.0.2.1 {DNS}") == ROAD


def test_an_exit_without_ipv6_makes_ipv6_fail_at_once(
    device: TunDevice, network: Network, way: Callable[[str], str]
) -> None:
    network(replace(ROUTE_ALL, ipv6=False)).apply()
    assert way(TARGET_ADDRESS) == TUNNEL
    assert way(LAN_RESOLVER6) == HOME
    assert way(TARGET_ADDRESS6) == NOWHERE
    assert way(f"{LAN_RESOLVER6} {DNS}") == NOWHERE
    with socket.socket(socket.AF_INET6) as application:
        started = time.monotonic()
        with pytest.raises(OSError, match="route to host"):
            application.connect((TARGET_ADDRESS6, 80))
        assert time.monotonic() - started < 10, "a connection that nobody answers takes minutes"


@pytest.mark.parametrize("state", [ROUTE_ALL, SPLIT])
def test_a_vanished_tun_leaks_nothing(
    client: Lab, network: Network, way: Callable[[str], str], state: HostState
) -> None:
    device = TunDevice.open("htvpn0", mtu=1500)
    network(state).apply()
    device.close()
    for destination in (TARGET_ADDRESS, TARGET_ADDRESS6):
        assert way(destination) == NOWHERE
        assert way(f"{destination} {DNS}") == NOWHERE
        assert way(f"{destination} {MARK}") == ROAD
    assert way(f"{LAN_RESOLVER} {DNS}") == NOWHERE
    assert way(f"192.0.2.1 {DNS}") == NOWHERE
    assert way(LAN_RESOLVER) == HOME


# --- tried with real packets; the client filters reverse paths strictly --------------------------


def test_replies_to_marked_sockets_pass_a_strict_reverse_path_filter(
    client: Lab, device: TunDevice, network: Network
) -> None:
    client.run(EXIT, "ip address add 203.0.113.9/32 dev lo".split())
    with client.inside(EXIT):
        listener = socket.create_server(("203.0.113.9", 443))
    network(ROUTE_ALL).apply()
    with listener, socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x4854)
        own.settimeout(30)
        own.connect(("203.0.113.9", 443))
        own.send(b"through")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(100) == b"through"


def test_a_query_to_the_lans_resolver_enters_the_tunnel_and_its_answer_comes_back(
    client: Lab, device: TunDevice, network: Network
) -> None:
    notes = start_lan_resolver(client)
    network(ROUTE_ALL).apply()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.settimeout(30)
        application.sendto(b"a query", (LAN_RESOLVER, 53))
        packet = next_datagram(device)
        assert (packet.src, packet.dst, bytes(packet[UDP].payload)) == (TUN_ADDRESS, LAN_RESOLVER, b"a query")
        answer = IP(src=LAN_RESOLVER, dst=TUN_ADDRESS) / UDP(sport=53, dport=packet[UDP].sport) / b"an answer"
        device.write([bytes(10), bytes(answer)])
        assert application.recv(100) == b"an answer"
    assert notes.read_text() == "", "the LAN's resolver was not asked"


@pytest.mark.parametrize("address", [LAN_RESOLVER, LAN_RESOLVER6, "link-local"])
def test_a_query_bound_to_the_lans_device_is_refused(
    client: Lab, device: TunDevice, network: Network, address: str
) -> None:
    notes = start_lan_resolver(client)
    if address == "link-local":
        shown = client.run(LAN, "ip -6 -o address show dev lan0 scope link".split()).stdout
        address = shown.split("inet6 ")[1].split("/")[0] + "%lan0"
    patience = 2 if "%" in address else 20
    ask = ["dig", "+tries=1", f"+time={patience}", "target.test", f"@{address}"]
    control = client.run(CLIENT, ask, check=False).stdout
    asked_before = notes.read_text()
    assert ("192.168.77.66" in control) == ("%" not in address), "the resolver answers its own addresses"
    network(ROUTE_ALL).apply()

    version = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = socket.getaddrinfo(address, 53, version, socket.SOCK_DGRAM)[0][4]
    before = client.counters(LAN, "lan0")
    with socket.socket(version, socket.SOCK_DGRAM) as application:
        application.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lan0")
        application.settimeout(30)
        with pytest.raises(OSError, match=r"refused|denied|permitted|unreachable"):
            application.sendto(b"a query", where)
            application.recv(100)
    assert (client.counters(LAN, "lan0") - before).received_packets <= 2, "neighbour discovery at most"
    assert notes.read_text() == asked_before


def test_a_dns_server_of_the_client_still_serves_the_lan(
    client: Lab, device: TunDevice, network: Network
) -> None:
    network(ROUTE_ALL).apply()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, client.inside(LAN):
        guest = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with guest, client.inside(CLIENT):
            server.bind((CLIENT_LAN, 53))
            server.settimeout(30)
            guest.settimeout(30)
            guest.sendto(b"a query", (CLIENT_LAN, 53))
            query, source = server.recvfrom(100)
            server.sendto(b"answer to " + query, source)
            assert guest.recv(100) == b"answer to a query"


def test_a_dns_server_published_from_a_container_still_serves(
    client: Lab, device: TunDevice, network: Network
) -> None:
    start_lan_resolver(client)  # it plays the container
    client.run(LAN, f"ip route add 10.77.0.0/16 via {CLIENT_LAN}".split())
    client.run(CLIENT, ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
    publish = f"udp dport 53 fib daddr type local dnat to {LAN_RESOLVER}"
    chain = "type nat hook prerouting priority dstnat;"
    table = f"table ip publish {{ chain incoming {{ {chain} {publish}; }}; }}"
    client.run(CLIENT, ["nft", "-f", "-"], input=table)
    network(ROUTE_ALL).apply()
    asked = client.run(EXIT, ["dig", "+tries=1", "+short", "printer.lan", f"@{CLIENT_A}"], check=False)
    assert asked.stdout == "192.168.77.80\n"


def test_an_error_from_a_router_with_an_address_of_the_lan_arrives(
    device: TunDevice, network: Network
) -> None:
    network(ROUTE_ALL).apply()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.settimeout(30)
        application.connect((TARGET_ADDRESS, 9))
        application.send(b"nobody there")
        quoted = bytes(next_datagram(device))[:28]
        error = IP(src="192.168.77.99", dst=TUN_ADDRESS) / ICMP(type=3, code=3) / quoted
        device.write([bytes(10), bytes(error)])
        with pytest.raises(ConnectionRefusedError):
            application.recv(100)


def test_the_lan_cannot_speak_to_the_tunnels_address(client: Lab, network: Network) -> None:
    client.run(LAN, f"ip route add {TUN_ADDRESS} via {CLIENT_LAN}".split())
    client.run(LAN, f"ip -6 route add {TUN_ADDRESS6} via fd77:3::2".split())
    with contextlib.ExitStack() as stack:
        device = TunDevice.open("htvpn0", mtu=1500)
        stack.callback(device.close)
        for address in (TUN_ADDRESS, TUN_ADDRESS6):
            client.run(CLIENT, ["ip", "address", "add", address, "dev", "htvpn0"])
        client.run(CLIENT, "ip link set dev htvpn0 up".split())
        applications = [
            stack.enter_context(socket.create_server((TUN_ADDRESS, 80))),
            stack.enter_context(socket.create_server((TUN_ADDRESS6, 80), family=socket.AF_INET6)),
        ]
        for application in applications:
            assert reaches_from_lan(client, application), "control: without us it can"
        network(ROUTE_ALL).apply()
        for application in applications:
            assert not reaches_from_lan(client, application)


def test_a_guest_behind_the_client_goes_through_the_tunnel(
    client: Lab, device: TunDevice, network: Network
) -> None:
    client.run(CLIENT, ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
    client.run(LAN, f"ip route add default via {CLIENT_LAN}".split())
    network(ROUTE_ALL).apply()
    with client.inside(LAN), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:
        guest.sendto(b"from a guest", (TARGET_ADDRESS, 53))
    packet = next_datagram(device)
    assert (packet.src, packet.dst, bytes(packet[UDP].payload)) == (
        LAN_RESOLVER,
        TARGET_ADDRESS,
        b"from a guest",
    )


def test_the_kernel_sends_nothing_of_its_own_into_a_quiet_tunnel(device: TunDevice, network: Network) -> None:
    network(ROUTE_ALL).apply()
    select.select([device.fd], [], [], 0.5)
    unasked = [IPv6(frame[10:]).summary() for frame in device.read_burst(100)]
    assert not any("RouterSolicitation" in summary for summary in unasked), unasked


def next_datagram(device: TunDevice) -> IP:
    """The next IPv4 packet with UDP that the kernel sends into the tunnel."""
    while select.select([device.fd], [], [], 5)[0]:
        packet = IP(device.read()[10:])
        if packet.version == 4 and UDP in packet:
            return packet
    raise AssertionError("nothing came into the tunnel")


def reaches_from_lan(lab: Lab, application: socket.socket) -> bool:
    """Whether a connection from the LAN to the application's address is made."""
    with lab.inside(LAN):
        guest = socket.socket(application.family)
    with guest:
        guest.settimeout(0.5)
        return guest.connect_ex(application.getsockname()[:2]) == 0
