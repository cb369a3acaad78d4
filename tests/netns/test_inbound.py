"""Connections from outside, in a real kernel: they live and begin whatever the host is made to look like."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lab import Lab, namespaces
from lab.host_tunnel import HostTunnel
from lab.topology import CLIENT, CLIENT_A, CLIENT_A6, CLIENT_B, EXIT, EXIT_B, OUTSIDE, OUTSIDE6

from halftunnel_vpn.host import Desired, Host, HostState, TrafficPolicy
from halftunnel_vpn.host.host_state import inbound_mark
from halftunnel_vpn.tun import TunDevice

pytestmark = pytest.mark.root

PORT = 2222
PATIENCE = 10.0
STATE = HostState(addresses=("10.72.84.2/32", "fd72:84::2/128"), inbound=True)
POLICY = TrafficPolicy(tunnel="htvpn0", inbound=True)
LOCKED = TrafficPolicy(inbound=True)

HOSTS = {
    "a tunnel": (STATE, None, None),
    "a tunnel without IPv6": (replace(STATE, ipv6=False), None, None),
    "a tunnel and a kill switch": (STATE, POLICY, LOCKED),
    "a tunnel without IPv6 and a kill switch": (replace(STATE, ipv6=False), POLICY, LOCKED),
    "a kill switch alone": (None, LOCKED, LOCKED),
}


@pytest.fixture
def outside(client: Lab) -> Lab:
    """Somebody far away has addresses on the other end of both roads."""
    client.add_outside()
    return client


@pytest.fixture
def make_host(
    outside: Lab, device: TunDevice, resolv_conf: Path
) -> Iterator[Callable[[str], contextlib.AbstractContextManager[None]]]:
    """Make the client's host what a key of HOSTS says, while the block runs."""
    directory = outside.directory / "state"

    @contextlib.contextmanager
    def host(name: str) -> Iterator[None]:
        state, policy, after = HOSTS[name]
        if state is None:
            guard = Host(directory)
            guard.apply(Desired(None, policy))
            assert guard.differences() == []
            yield
            assert guard.differences() == []
            guard.apply(Desired())
            return
        network = HostTunnel(state, directory, resolv_conf=resolv_conf, policy=policy, after=after)
        assert network.apply() == []
        assert network.verify() == []
        yield
        assert network.verify() == []
        network.cleanup()
        if after is not None:
            Host(directory).apply(Desired())

    return host


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def opened(lab: Lab, host: str, address: str, kind: socket.SocketKind, port: int = 0) -> socket.socket:
    """A socket in a host's network, bound."""
    with lab.inside(host):
        made = socket.socket(family_of(address), kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(PATIENCE)
    made.bind((address, port))
    return made


@pytest.fixture
def session(outside: Lab) -> Iterator[Callable[[str, str], tuple[socket.socket, socket.socket]]]:
    """Somebody far away connects to an address of the client: both ends."""
    with contextlib.ExitStack() as stack:
        listeners: dict[str, socket.socket] = {}

        def connect(far: str, near: str) -> tuple[socket.socket, socket.socket]:
            if near not in listeners:
                listeners[near] = stack.enter_context(opened(outside, CLIENT, near, socket.SOCK_STREAM, PORT))
                listeners[near].listen()
            caller = stack.enter_context(opened(outside, EXIT, far, socket.SOCK_STREAM))
            caller.connect((near, PORT))
            answering = stack.enter_context(listeners[near].accept()[0])
            answering.settimeout(PATIENCE)
            return caller, answering

        yield connect


def talk(caller: socket.socket, answering: socket.socket) -> None:
    """The host speaks first, as a shell does when a tunnel has come up in it."""
    answering.sendall(b"prompt")
    assert caller.recv(100) == b"prompt"
    caller.sendall(b"command")
    assert answering.recv(100) == b"command"


class Wire:
    """What the client sends to the outside through its physical devices."""

    def __init__(self, *devices: str) -> None:
        self._taps = [socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(3)) for _ in devices]
        for tap, device in zip(self._taps, devices, strict=True):
            tap.bind((device, 3))
            tap.setblocking(False)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        for tap in self._taps:
            tap.close()

    def left(self) -> int:
        """Packets to the outside since the last call."""
        count = 0
        for tap in self._taps:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet, (_, protocol, kind, *_) = tap.recvfrom(65536)
                    raw = {0x0800: packet[16:20], 0x86DD: packet[24:40]}.get(protocol)
                    count += kind == socket.PACKET_OUTGOING and raw in (
                        socket.inet_aton(OUTSIDE), socket.inet_pton(socket.AF_INET6, OUTSIDE6),
                    )  # fmt: skip
        return count


@pytest.mark.parametrize("name", HOSTS)
def test_connections_from_outside_go_on_and_begin(outside, make_host, session, name) -> None:
    before = [session(OUTSIDE, CLIENT_A), session(OUTSIDE6, CLIENT_A6)]
    with make_host(name):
        for pair in before:
            talk(*pair)
        during = [session(OUTSIDE, CLIENT_A), session(OUTSIDE6, CLIENT_A6)]
        for pair in during:
            talk(*pair)
        for far, near in ((OUTSIDE, CLIENT_A), (OUTSIDE6, CLIENT_A6)):
            with opened(outside, CLIENT, near, socket.SOCK_DGRAM, 5000) as server:
                ask(outside, far, near, server)
            outside.run(EXIT, ["ping", "-c", "1", "-W", "10", "-I", far, near])
    for pair in before + during:
        talk(*pair)


def ask(lab: Lab, far: str, near: str, server: socket.socket) -> None:
    """A datagram and its answer, which comes from the address that was asked."""
    with opened(lab, EXIT, far, socket.SOCK_DGRAM) as caller:
        caller.sendto(b"question", (near, 5000))
        data, peer = server.recvfrom(100)
        server.sendto(b"answer to " + data, peer)
        assert caller.recvfrom(100) == (b"answer to question", caller_view(near))


def caller_view(near: str) -> tuple[object, ...]:
    return (near, 5000, 0, 0) if ":" in near else (near, 5000)


@pytest.mark.parametrize("name", ["a tunnel", "a tunnel and a kill switch"])
def test_a_server_that_is_bound_to_no_address_answers_from_the_one_that_was_asked(
    outside, make_host, name
) -> None:
    with make_host(name):
        for far, near, every in ((OUTSIDE, CLIENT_A, "0.0.0.0"), (OUTSIDE6, CLIENT_A6, "::")):
            with opened(outside, CLIENT, every, socket.SOCK_DGRAM, 5000) as server:
                ask(outside, far, near, server)


@pytest.mark.parametrize("name", HOSTS)
def test_what_the_host_begins_does_not_leave_whatever_it_is_bound_to(outside, make_host, name) -> None:
    with make_host(name), Wire("road-a", "road-b", "lan0") as wire:
        for far, near in ((OUTSIDE, CLIENT_A), (OUTSIDE6, CLIENT_A6)):
            for mark in (0, inbound_mark(STATE.mark)):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with opened(outside, CLIENT, near, kind) as program:
                        program.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
                        program.setblocking(False)
                        with contextlib.suppress(OSError):
                            program.connect((far, 80))
                            program.send(b"escaped")
                        select.select([], [program], [], 0.05)
        assert wire.left() == 0


def test_a_connection_that_was_open_to_the_outside_does_not_go_on(outside, make_host) -> None:
    """Whichever end speaks first: conntrack, which comes with our table, takes the first for the beginner."""
    for far, near in ((OUTSIDE, CLIENT_A), (OUTSIDE6, CLIENT_A6)):
        for is_far_first in (False, True):
            with contextlib.ExitStack() as stack:
                listener = stack.enter_context(opened(outside, EXIT, far, socket.SOCK_STREAM, 80))
                listener.listen()
                program = stack.enter_context(opened(outside, CLIENT, near, socket.SOCK_STREAM))
                program.connect((far, 80))
                answering = stack.enter_context(listener.accept()[0])
                with make_host("a tunnel"), Wire("road-a", "road-b", "lan0") as wire:
                    if is_far_first:
                        answering.send(b"data")
                        assert program.recv(100) == b"data"
                    program.send(b"secret")
                    assert wire.left() == 0, (far, is_far_first)


@pytest.mark.parametrize("is_tunnel_up", [True, False])
def test_answers_to_marked_questions_pass_a_strict_filter_where_inbound_is_off(
    outside, device, resolv_conf, is_tunnel_up: bool
) -> None:
    """The names of the paths are asked before a tunnel is up, and legs are dialled then."""
    directory = outside.directory / "state"
    policy = replace(LOCKED, inbound=False, own_ports=(443,))
    guard = Host(directory)
    network = HostTunnel(replace(STATE, inbound=False), directory, resolv_conf=resolv_conf)
    with contextlib.ExitStack() as stack:
        if is_tunnel_up:
            network.apply()
            stack.callback(network.cleanup)
        else:
            guard.apply(Desired(None, policy))
            stack.callback(guard.apply, Desired())
        for kind, port in ((socket.SOCK_DGRAM, 53), (socket.SOCK_STREAM, 443)):
            far = stack.enter_context(opened(outside, EXIT, OUTSIDE, kind, port))
            with opened(outside, CLIENT, CLIENT_A, kind) as own:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, STATE.mark)
                if kind == socket.SOCK_STREAM:
                    far.listen()
                    own.connect((OUTSIDE, port))
                else:
                    own.sendto(b"question", (OUTSIDE, port))
                    _, peer = far.recvfrom(100)
                    far.sendto(b"answer", peer)
                    assert own.recv(100) == b"answer"
        if not is_tunnel_up:
            assert guard.differences() == []


def test_without_the_setting_connections_from_outside_are_cut(outside, session, device, resolv_conf) -> None:
    state = replace(STATE, inbound=False)
    pair = session(OUTSIDE, CLIENT_A)
    network = HostTunnel(state, outside.directory / "state", resolv_conf=resolv_conf)
    network.apply()
    with Wire("road-a") as wire:
        pair[1].send(b"prompt")
        assert wire.left() == 0
    network.cleanup()


def test_replies_leave_by_the_uplink_that_the_connection_came_in_on(outside, make_host, session) -> None:
    """Strict reverse-path filters at a provider drop what comes with the other provider's address."""
    outside.run(CLIENT, ["ip", "route", "add", "default", "via", EXIT_B, "dev", "road-b", "metric", "900"])
    outside.run(EXIT, ["nft", "-f", "-"], input="""
        table inet provider {
            chain strict {
                type filter hook prerouting priority raw
                iifname "road-a" ip saddr != 10.77.1.0/24 drop
                iifname "road-b" ip saddr != 10.77.2.0/24 drop
            }
        }""")  # fmt: skip
    for name in ("a tunnel", "a kill switch alone"):
        with make_host(name):
            for near in (CLIENT_A, CLIENT_B):
                talk(*session(OUTSIDE, near))


def test_a_forwarded_port_of_a_container_answers(outside, make_host) -> None:
    """As Docker forwards: destination NAT to a bridge, behind which the container's network is."""
    for command in (
        "ip link add br-container type veth peer name eth0",
        "ip address add 172.31.0.1/24 dev br-container",
        "ip link set dev br-container up",
        "sysctl -qw net.ipv4.ip_forward=1",
    ):
        outside.run(CLIENT, command.split())
    with container(outside) as inside:
        outside.run(CLIENT, ["nft", "-f", "-"], input=f"""
            table ip docker {{
                chain pre {{
                    type nat hook prerouting priority dstnat
                    ip daddr {CLIENT_A} tcp dport 8080 dnat to 172.31.0.2:80
                }}
                chain post {{
                    type nat hook postrouting priority srcnat
                    ip saddr 172.31.0.0/24 oifname != "br-container" masquerade
                }}
            }}""")  # fmt: skip
        with inside() as listener, make_host("a tunnel and a kill switch"):
            listener.settimeout(PATIENCE)
            with opened(outside, EXIT, OUTSIDE, socket.SOCK_STREAM) as caller:
                caller.connect((CLIENT_A, 8080))
                with listener.accept()[0] as answering:
                    talk(caller, answering)


@contextlib.contextmanager
def container(lab: Lab) -> Iterator[Callable[[], socket.socket]]:
    """A network namespace behind br-container; makes sockets that listen in it."""
    name = f"{lab.namespace(CLIENT)}-container"
    namespaces.create(name)
    try:
        namespaces.command(["ip", "-n", lab.namespace(CLIENT), "link", "set", "dev", "eth0", "netns", name])
        for words in ("address add 172.31.0.2/24 dev eth0", "link set dev eth0 up",
                      "route add default via 172.31.0.1"):  # fmt: skip
            namespaces.command(["ip", "-n", name, *words.split()])

        def listen() -> socket.socket:
            with namespaces.inside(name):
                made = socket.socket()
            made.bind(("172.31.0.2", 80))
            made.listen()
            return made

        yield listen
    finally:
        namespaces.delete(name)


def test_a_mark_is_taken_from_whoever_is_neither_us_nor_listed(outside, make_host) -> None:
    """A program with CAP_NET_RAW may set any mark, as one of a container on the host's network may."""
    program = """
import contextlib, os, socket, sys
mark, address, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
with contextlib.suppress(OSError):
    made.sendto(b"escaped", (address, port))
"""
    command = ["setpriv", "--reuid=65534", "--clear-groups", "--ambient-caps=+net_raw", "--inh-caps=+net_raw"]
    for name in ("a tunnel", "a tunnel and a kill switch"):
        with make_host(name), Wire("road-a", "road-b", "lan0") as wire:
            for mark in (STATE.mark, STATE.mark + 1, inbound_mark(STATE.mark)):
                words = [*command, sys.executable, "-c", program, str(mark), OUTSIDE, "443"]
                outside.run(CLIENT, words)
                assert wire.left() == 0, (name, hex(mark))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, STATE.mark)
                with contextlib.suppress(OSError):
                    own.sendto(b"leg", (OUTSIDE, 53))
            assert wire.left() == (1 if name == "a tunnel" else 0), "own ports are closed by this policy"


def test_a_connection_of_ours_keeps_its_way_when_its_program_has_closed_it(
    outside, make_host, session
) -> None:
    """What was not sent yet, and the FIN, leave when the socket has no owner any more."""
    with make_host("a tunnel"), opened(outside, EXIT, OUTSIDE, socket.SOCK_STREAM, 443) as listener:
        listener.listen()
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, STATE.mark)
            own.settimeout(PATIENCE)
            own.connect((OUTSIDE, 443))
            answering, _ = listener.accept()
            outside.lose(EXIT, "road-a", 1000)
            own.sendall(b"goodbye")
        outside.lose(EXIT, "road-a", 0)
        with answering:
            answering.settimeout(PATIENCE)
            assert answering.recv(100) + answering.recv(100) == b"goodbye"


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_with_ipv6_switched_off_comes_up(outside, make_host, session, name: str) -> None:
    """Administrators switch it off on all devices, the loopback device included."""
    switch = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    with outside.inside(CLIENT):
        switch.write_text("1")
    with make_host(name):
        talk(*session(OUTSIDE, CLIENT_A))
        with pytest.raises(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
            own.connect((OUTSIDE6, 443))
