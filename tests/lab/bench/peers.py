"""Who is compared: what all peers have in common, no tunnel at all, and Half-Tunnel."""

from __future__ import annotations

import abc
import itertools
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Final

from halftunnel_vpn.errors import HostError
from lab import namespaces
from lab.bench.latency import first_byte
from lab.topology import EXIT, ROAD_A, UPLINK, Lab
from lab.tunnel import LabTunnel

TARGET_NETWORK: Final = "198.51.100.0/24"
"""What a peer's client routes into its tunnel."""

TUNNEL_NETWORK: Final = "10.99.0"
"""First three bytes of the addresses inside a peer's tunnel; the exit is .1."""

DEVICE: Final = "vpn0"
"""The tunnel's device at both ends, where its name can be chosen."""

APPEAR_TIMEOUT: Final = 10.0
"""Seconds for something a program makes (a socket, a device) to be there."""

COMPILED: Final = Path(__file__).parents[3] / "build" / "compiled"
"""Where scripts/compile puts the package."""

_GATEWAY: Final = """\
add table ip bench
delete table ip bench
table ip bench {{
  chain outward {{ type nat hook postrouting priority srcnat; oifname "{uplink}" masquerade; }}
  chain through {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "{inside}" oifname "{uplink}" accept
  }}
}}
"""


class Peer(abc.ABC):
    """One way from a lab's client to its target. Methods raise HostError when a command fails."""

    id: ClassVar[str]
    title: ClassVar[str]
    commands: ClassVar[tuple[str, ...]] = ()
    """Programs that must be installed."""
    options: ClassVar[tuple[str, ...]] = ()
    """What is set other than its defaults, for the report."""
    road_only: ClassVar[bool] = False
    """Whether it takes part only where the road is long."""
    when_asked: ClassVar[bool] = False
    """Whether it takes part only when it is named."""
    where_found: ClassVar[bool] = False
    """Whether it is left out, and that is no failure, where its programs are not installed."""
    carries_ping: ClassVar[bool] = True
    """Whether a ping goes to the target and back, and is not answered by the client itself."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.client: subprocess.Popen[str] | None = None
        self.exit: subprocess.Popen[str] | None = None
        # Numbers of pages that were not loaded through this peer yet; page 0 warms browsers up.
        self.new_pages = itertools.count(1)
        self.directory = lab.directory / "peer"
        self.directory.mkdir(mode=0o755)

    @classmethod
    def missing(cls) -> list[str]:
        """Programs that are not installed."""
        return [command for command in cls.commands if shutil.which(command) is None]

    @classmethod
    @abc.abstractmethod
    def version(cls) -> str:
        """Name and version of what runs."""

    @abc.abstractmethod
    def start_exit(self) -> None:
        """Start the exit and return when a client may come."""

    @abc.abstractmethod
    def start_client(self) -> None:
        """Start the client; need not wait until it is connected."""

    def stop_client(self) -> None:
        """End the client."""
        if self.client is not None:
            self.lab.stop(self.client)
            self.client = None

    def stop_exit(self) -> None:
        """End the exit."""
        if self.exit is not None:
            self.lab.stop(self.exit)
            self.exit = None

    def set_up(self) -> float:
        """Exit and client, and return when the target answers: seconds from the client's start."""
        self.start_exit()
        return self.connect()

    def connect(self) -> float:
        """Start the client; seconds until the first byte of the target."""
        try:
            return first_byte(self.lab, self.start_client)
        except HostError as error:
            raise HostError(f"{error}\n{self.last_words()}") from error

    def renew(self) -> float:
        """Start both ends again; return the seconds from the client's start to the first byte."""
        self.stop_client()
        self.stop_exit()
        return self.set_up()

    def client_processes(self) -> list[int]:
        """The roots of what belongs to the client; empty without a tunnel."""
        return [] if self.client is None else [self.client.pid]

    def exit_processes(self) -> list[int]:
        """The roots of what belongs to the exit."""
        return [] if self.exit is None else [self.exit.pid]

    def last_words(self) -> str:
        """The end of what both programs have printed."""
        processes = [process for process in (self.exit, self.client) if process is not None]
        return "\n".join(self.lab.output(process).strip()[-400:] for process in processes)

    # --- for the peers that need a gateway at the exit ----------------------------------------------

    def open_gateway(self, inside: str) -> None:
        """Let the exit forward what comes out of the tunnel's device, and nothing else, as NAT does."""
        self.lab.run(EXIT, ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        self.lab.run(EXIT, ["nft", "-f", "-"], input=_GATEWAY.format(uplink=UPLINK, inside=inside))

    def ip(self, host: str, words: str) -> None:
        """An ip(8) command in a host."""
        namespaces.command(["ip", "-n", self.lab.namespace(host), *words.split()])


class Direct(Peer):
    """The exit forwards as any router with NAT does: what the machine itself can do."""

    id = "direct"
    title = "direct"

    @classmethod
    def version(cls) -> str:
        """The kernel is the program."""
        return "no tunnel"

    def start_exit(self) -> None:
        """Forward from road A."""
        self.open_gateway(ROAD_A)

    def start_client(self) -> None:
        """Nothing to start: its default route leads to the exit."""


class HalfTunnel(Peer):
    """Ours: the two configuration files as `htvpn` writes them."""

    id = "ours"
    title = "Half-Tunnel"
    legs: ClassVar[int] = 1
    shaping: ClassVar[str] = "off"
    package: ClassVar[Path | None] = None
    """Another build of the package than the one that measures."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        legs = {} if self.legs == 1 else {"connections": str(self.legs)}
        shaping = {"shaping": {"mode": f'"{self.shaping}"'}}
        profile = {"upstream": legs, "downstream": legs, **(shaping if self.shaping != "off" else {})}
        self._tunnel = LabTunnel(lab, profile=profile, package=self.package)

    @classmethod
    def version(cls) -> str:
        """Ours."""
        return f"Half-Tunnel {metadata.version('halftunnel-vpn')}"

    def start_exit(self) -> None:
        """`htvpn server run`."""
        self.exit = self._tunnel.start_exit()

    def start_client(self) -> None:
        """`htvpn up --foreground`, which routes everything into the tunnel."""
        self.client = self._tunnel.start_client()


class HalfTunnelFourLegs(HalfTunnel):
    """Ours with `connections = 4` for both roads."""

    id = "ours-4"
    title = "Half-Tunnel, 4 legs"
    options = ("connections = 4 in [upstream] and [downstream]",)
    legs = 4
    road_only = True


class HalfTunnelSplit(HalfTunnel):
    """Ours with the upstream on a clock."""

    id = "ours-split"
    title = "Half-Tunnel, split"
    options = ('mode = "split" in [shaping]',)
    shaping = "split"
    when_asked = True


class HalfTunnelStrong(HalfTunnel):
    """Ours with both directions on clocks."""

    id = "ours-strong"
    title = "Half-Tunnel, strong"
    options = ('mode = "strong" in [shaping]',)
    shaping = "strong"
    when_asked = True


class HalfTunnelThreeLegs(HalfTunnel):
    """Ours with three legs in each direction, which take turns."""

    id = "ours-3"
    title = "Half-Tunnel, 3 legs"
    options = ("connections = 3 in [upstream] and [downstream]",)
    legs = 3
    when_asked = True


class HalfTunnelSplitThreeLegs(HalfTunnelSplit):
    """Ours with three legs in each direction, which are drawn by lot."""

    id = "ours-split-3"
    title = "Half-Tunnel, split, 3 legs"
    options = ('mode = "split" in [shaping], connections = 3 in [upstream] and [downstream]',)
    legs = 3


class HalfTunnelCompiled(HalfTunnel):
    """Ours as scripts/compile makes it."""

    id = "ours-compiled"
    title = "Half-Tunnel, compiled"
    options = ("the pure floors compiled by scripts/compile",)
    package = COMPILED
    when_asked = True

    @classmethod
    def missing(cls) -> list[str]:
        """The build, when it has not been made; scripts/bench makes it."""
        return [] if COMPILED.is_dir() else ["build/compiled"]


def first_line(argv: Sequence[str], number: int = 0) -> str:
    """A line of what a program prints about itself, on either stream; "unknown" when there is none."""
    try:
        result = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10, check=False
        )
    except FileNotFoundError:
        return "unknown"
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    return lines[number] if len(lines) > number else "unknown"


def wait_until(there: Callable[[], bool], what: str) -> None:
    """Poll a callable until it is true. HostError after APPEAR_TIMEOUT."""
    deadline = time.monotonic() + APPEAR_TIMEOUT
    while not there():
        if time.monotonic() > deadline:
            raise HostError(f"{what} is not there after {APPEAR_TIMEOUT:.0f} s")
        time.sleep(0.005)
