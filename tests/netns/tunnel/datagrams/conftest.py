"""Datagrams through the real tunnel, with both ends in hand: sockets of the client and of the target."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Iterator

import pytest
from lab import Lab, namespaces
from lab.topology import (
    CLIENT,
    EXIT,
    TARGET,
    TARGET_ADDRESS,
    UPLINK,
)

PATIENCE = 60.0
"""Seconds that a call on a socket may take before the test fails."""

SECOND_ADDRESS, SECOND_ADDRESS6 = "198.51.100.3", "2001:db8:100::3"
"""Where the target is another party."""

MIDDLE, FAR = "middle", "far"
"""Hosts behind the target, see :func:`road_beyond`."""

DEVICE = "htvpn0"
ETH_P_IP = 0x0800

_serials = itertools.count(200)


class Ends:
    """Makes the ends of conversations through the tunnel of ``lab``; closes what is open at the end."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._open = contextlib.ExitStack()

    def app(self, version: int = 4, *, to: socket.socket | tuple[str, int] | None = None) -> socket.socket:
        """A UDP socket of a program on the client, connected if it is told where."""
        sock = self._udp(CLIENT, version)
        if to is not None:
            sock.connect(to.getsockname() if isinstance(to, socket.socket) else to)
        return sock

    def server(self, address: str = TARGET_ADDRESS, port: int = 0) -> socket.socket:
        """A UDP socket that is bound on the target."""
        sock = self._udp(TARGET, 6 if ":" in address else 4)
        sock.bind((address, port))
        return sock

    def server_at_the_far_end(self, address: str) -> socket.socket:
        """A UDP socket that is bound on the far host of ``road_beyond``."""
        sock = self._udp(FAR, 6 if ":" in address else 4)
        sock.bind((address, 0))
        return sock

    def ping(self, version: int = 4) -> socket.socket:
        """A ping socket of a program on the client, see icmp(7)."""
        if version == 4:
            return self.raw(CLIENT, socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        return self.raw(CLIENT, socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)

    def raw(self, host: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Any other socket of a host."""
        with self._lab.inside(host):
            return self._kept(socket.socket(family, kind, protocol))

    def close(self) -> None:
        """Close everything."""
        self._open.close()

    def _udp(self, host: str, version: int) -> socket.socket:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        return self.raw(host, family, socket.SOCK_DGRAM)

    def _kept(self, sock: socket.socket) -> socket.socket:
        sock.settimeout(PATIENCE)
        return self._open.enter_context(sock)


@pytest.fixture
def ends(rig) -> Iterator[Ends]:
    """Sockets on both sides of the shared tunnel."""
    made = Ends(rig.lab)
    yield made
    made.close()


@pytest.fixture(scope="session")
def ends_of() -> Callable[[Lab], contextlib.closing[Ends]]:
    """The same for a tunnel of the test's own: ``with ends_of(own.lab) as ends``."""
    return lambda lab: contextlib.closing(Ends(lab))


@pytest.fixture
def second_address(rig) -> Iterator[None]:
    """The target has two more addresses, which its kernel may choose for ICMP errors meanwhile."""
    addresses = (f"{SECOND_ADDRESS}/24", f"{SECOND_ADDRESS6}/64")
    for address in addresses:
        rig.on_target(f"ip address add {address} dev {UPLINK}")
    yield
    for address in addresses:
        rig.on_target(f"ip address del {address} dev {UPLINK}")


@pytest.fixture(scope="session")
def road_beyond(rig) -> Iterator[None]:
    """The target forwards to a middle host, and that one to a far host, over a link with an MTU of 1280."""
    middle, far = rig.lab.namespace(MIDDLE), rig.lab.namespace(FAR)
    target = rig.lab.namespace(TARGET)
    for name in (middle, far):
        namespaces.create(name)
    ip = namespaces.command
    for device, one, other in (("far1", target, middle), ("far2", middle, far)):
        ip(f"ip link add {device} netns {one} type veth peer name {device} netns {other}".split())
        for end in (one, other):
            ip(f"ip -n {end} link set dev {device} mtu {1500 if device == 'far1' else 1280} up".split())
    for name, address, device in (
        (target, "198.51.100.129/26", "far1"),
        (target, "2001:db8:100:0:1::1/80", "far1"),
        (middle, "198.51.100.130/26", "far1"),
        (middle, "2001:db8:100:0:1::2/80", "far1"),
        (middle, "198.51.100.193/26", "far2"),
        (middle, "2001:db8:100:0:2::1/80", "far2"),
        (far, "198.51.100.194/26", "far2"),
        (far, "2001:db8:100:0:2::2/80", "far2"),
    ):
        ip(f"ip -n {name} address add {address} dev {device} nodad".split())
    for name, route in (
        (rig.lab.namespace(EXIT), "198.51.100.128/25 via 198.51.100.2"),
        (rig.lab.namespace(EXIT), "2001:db8:100:0:1::/80 via 2001:db8:100::2"),
        (rig.lab.namespace(EXIT), "2001:db8:100:0:2::/80 via 2001:db8:100::2"),
        (target, "198.51.100.192/26 via 198.51.100.130"),
        (target, "2001:db8:100:0:2::/80 via 2001:db8:100:0:1::2"),
        (middle, "default via 198.51.100.129"),
        (middle, "default via 2001:db8:100:0:1::1"),
        (far, "default via 198.51.100.193"),
        (far, "default via 2001:db8:100:0:2::1"),
    ):
        ip(f"ip -n {name} route add {route}".split())
    for name in (target, middle):
        for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            ip(["ip", "netns", "exec", name, "sysctl", "-qw", setting])
    for name in (target, middle):  # a traceroute is many errors at once
        for setting in ("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"):
            ip(["ip", "netns", "exec", name, "sysctl", "-qw", setting])
    yield
    for name in (middle, far):
        namespaces.delete(name)


@pytest.fixture
def new_far_address(rig, road_beyond) -> Callable[[int], str]:
    """Makes an address of the far host, for an IP version; no kernel knows the MTU of the road to it."""

    def make(version: int) -> str:
        number = next(_serials)
        address = f"198.51.100.{number}/26" if version == 4 else f"2001:db8:100:0:2::{number}/80"
        command = f"ip -n {rig.lab.namespace(FAR)} address add {address} dev far2"
        namespaces.command(command.split() + ["nodad"] * (version == 6))
        return address.partition("/")[0]

    return make


@pytest.fixture(scope="session")
def into_device(rig) -> Iterator[socket.socket]:
    """A socket of the client whose messages are put into the TUN device as they are."""
    with rig.lab.inside(CLIENT):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((DEVICE, ETH_P_IP))
    yield sock
    sock.close()
