"""Three hosts in namespaces, fresh for each test, and what tells two states of a host apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Lab
from lab.host_tunnel import HostTunnel
from lab.namespaces import CONFIGURATION
from lab.topology import CLIENT

from halftunnel_vpn.host import HostState
from halftunnel_vpn.tun import TunDevice


@pytest.fixture(scope="session", autouse=True)
def no_leftovers(leftovers_swept: None) -> None:
    """A test run that was killed left namespaces behind."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def client(lab: Lab) -> Iterator[Lab]:
    """The test itself stands in the client's network."""
    with lab.inside(CLIENT):
        yield lab


@pytest.fixture
def resolv_conf(lab: Lab) -> Path:
    """The file that a process of the client sees as /etc/resolv.conf."""
    return CONFIGURATION / lab.namespace(CLIENT) / "resolv.conf"


@pytest.fixture
def device(client: Lab) -> Iterator[TunDevice]:
    opened = TunDevice.open("htvpn0", mtu=1500)
    yield opened
    opened.close()


@pytest.fixture
def network(lab: Lab, resolv_conf: Path) -> Callable[[HostState], HostTunnel]:
    """The client's HostTunnel for a state."""
    return lambda state: HostTunnel(state, lab.directory / "state", resolv_conf=resolv_conf)


@pytest.fixture
def snapshot(client: Lab, resolv_conf: Path) -> Callable[[], dict[str, str]]:
    """Everything of the client that a tunnel might change, as text."""
    commands = (
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "ip address",
        "nft list ruleset",
    )

    def take() -> dict[str, str]:
        taken = {command: client.run(CLIENT, command.split()).stdout for command in commands}
        for version in ("ipv4", "ipv6"):
            for path in sorted(Path("/proc/sys/net", version, "conf").glob("*/*")):
                try:
                    taken[str(path)] = path.read_text()
                except OSError:  # stable_secret cannot be read before it is set
                    taken[str(path)] = "unreadable"
        taken["resolv.conf"] = resolv_conf.read_text() if resolv_conf.exists() else "absent"
        return taken

    return take


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Returns once a question is answered with True; fails the test after some seconds."""

    def wait(question: Callable[[], bool], *, within: float = 90.0) -> None:
        deadline = time.monotonic() + within
        while not question():
            assert time.monotonic() < deadline, f"not so after {within:.0f} s"
            time.sleep(0.02)

    return wait
