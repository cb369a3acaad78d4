"""Four namespaces and what joins them.

    lan 192.168.77.0/24 --- client --- road A 10.77.1.0/24 --- exit --- 198.51.100.0/24 --- target
                                 \\---- road B 10.77.2.0/24 ---/

The client's default route leads to the exit over road A, and the exit forwards nothing: to the target
there is no way but a tunnel. The client filters reverse paths strictly, since that is the hard case.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

import halftunnel_vpn
from halftunnel_vpn.errors import HostError
from lab import links, namespaces

CLIENT: Final = "client"
EXIT: Final = "exit"
TARGET: Final = "target"
LAN: Final = "lan"
HOSTS: Final = (CLIENT, EXIT, TARGET, LAN)

ROAD_A: Final = "road-a"
ROAD_B: Final = "road-b"
LAN_LINK: Final = "lan0"
UPLINK: Final = "uplink"
"""Devices; a link's two ends have the same name in their namespaces."""

DOMAIN_A: Final = "a.half-tunnel.test"
DOMAIN_B: Final = "b.half-tunnel.test"
"""Names of the exit's two addresses, in every namespace's /etc/hosts."""

EXIT_A, EXIT_A6 = "10.77.1.1", "fd77:1::1"
EXIT_B, EXIT_B6 = "10.77.2.1", "fd77:2::1"
CLIENT_A, CLIENT_A6 = "10.77.1.2", "fd77:1::2"
CLIENT_B, CLIENT_B6 = "10.77.2.2", "fd77:2::2"
CLIENT_LAN, CLIENT_LAN6 = "192.168.77.2", "fd77:3::2"
LAN_RESOLVER, LAN_RESOLVER6 = "192.168.77.53", "fd77:3::53"
EXIT_UPLINK, EXIT_UPLINK6 = "198.51.100.1", "2001:db8:100::1"
TARGET_ADDRESS, TARGET_ADDRESS6 = "198.51.100.2", "2001:db8:100::2"
OUTSIDE, OUTSIDE6 = "203.0.113.9", "2001:db8:9::9"
"""Somebody far away who calls the client, once :meth:`Lab.add_outside` was called."""

_LINKS: Final = (
    # device, one end and its addresses, the other end and its addresses
    (ROAD_A, CLIENT, (CLIENT_A, CLIENT_A6), EXIT, (EXIT_A, EXIT_A6)),
    (ROAD_B, CLIENT, (CLIENT_B, CLIENT_B6), EXIT, (EXIT_B, EXIT_B6)),
    (LAN_LINK, CLIENT, (CLIENT_LAN, CLIENT_LAN6), LAN, (LAN_RESOLVER, LAN_RESOLVER6)),
    (UPLINK, EXIT, (EXIT_UPLINK, EXIT_UPLINK6), TARGET, (TARGET_ADDRESS, TARGET_ADDRESS6)),
)
_RESOLVERS: Final = {CLIENT: LAN_RESOLVER, EXIT: TARGET_ADDRESS, TARGET: TARGET_ADDRESS, LAN: LAN_RESOLVER}

CompletedText = subprocess.CompletedProcess[str]

_SOURCES: Final = (Path(__file__).parents[1], Path(halftunnel_vpn.__file__).parents[1])
"""Where `lab` and the package under test are imported from."""

_POLL: Final = 0.01
_LISTEN_STATE: Final = "0A"  # /proc/net/tcp: TCP_LISTEN
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)  # a terminal that closes reaches no other session
_serials = itertools.count(1)


class Lab:
    """The namespaces, what runs in them, and a directory; all of it goes when the lab is left.

    A context manager. Several may live at once, in one process or several. Raises HostError, one sentence,
    when something cannot be set up. SIGTERM and SIGHUP end the ``with`` block as SystemExit, unless the
    program handles them.

    With ``own_sessions`` each command that it runs or starts has a session of its own, as a service has:
    the kernel weighs sessions against each other, and `nice` inside of one only (autogroups, sched(7)).
    """

    def __init__(self, *, own_sessions: bool = False) -> None:
        self._own_sessions = own_sessions
        self._label = f"{namespaces.PREFIX}-{os.getpid()}-{next(_serials)}"
        self._processes: list[subprocess.Popen[str]] = []
        self._outputs: dict[int, Path] = {}
        self._kept = False
        self._old_handlers: dict[signal.Signals, Any] = {}
        self.directory = Path()
        """A directory of the lab's own, for files and the output of processes."""

    # --- life -------------------------------------------------------------------------------------

    def __enter__(self) -> Lab:
        self._watch_for_signals()
        try:
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self._label}-"))
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._kept:
            self.close()

    def close(self) -> None:
        """End what runs and remove everything; harmless when done already."""
        for process in reversed(self._processes):
            self.stop(process)
        for host in HOSTS:
            namespaces.delete(self.namespace(host))
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)
        self._forget_signals()

    def keep(self) -> None:
        """Leave everything up when the block ends; :meth:`sweep` removes it once this process is gone."""
        self._kept = True

    @staticmethod
    def sweep() -> list[str]:
        """Remove what labs of dead processes left; the names of the namespaces that went."""
        gone = [name for name in namespaces.names() if not namespaces.owner_lives(name)]
        for name in gone:
            namespaces.delete(name)
        for parent in {Path(tempfile.gettempdir()), namespaces.CONFIGURATION}:
            for path in parent.glob(f"{namespaces.PREFIX}-*"):
                if not namespaces.owner_lives(path.name):
                    shutil.rmtree(path, ignore_errors=True)
        return gone

    # --- in a host --------------------------------------------------------------------------------

    def namespace(self, host: str) -> str:
        """The name for `ip netns exec`."""
        return f"{self._label}-{host}"

    def inside(self, host: str) -> contextlib.AbstractContextManager[None]:
        """Put this thread into a host's network; see :func:`lab.namespaces.inside`."""
        return namespaces.inside(self.namespace(host))

    def argv(self, host: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` in a host, with that host's resolv.conf and hosts file."""
        return ["ip", "netns", "exec", self.namespace(host), *argv]

    @staticmethod
    def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's environment, with which `python -m` finds `lab` and the package under test."""
        paths = [*map(str, _SOURCES), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(extra or {})}

    def run(
        self,
        host: str,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CompletedText:
        """Run a command to its end. With ``check``, HostError with its standard error when it fails."""
        result = subprocess.run(
            self.argv(host, argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=self.environment(env),
            start_new_session=self._own_sessions,
            check=False,
        )
        if check and result.returncode:
            raise HostError(
                f"`{' '.join(argv)}` on {host} ended with {result.returncode}: {result.stderr.strip()}"
            )
        return result

    def python(self, host: str, program: str, *arguments: str, check: bool = True) -> CompletedText:
        """Run a piece of Python in the host, by this interpreter and with this package."""
        return self.run(host, [sys.executable, "-c", program, *arguments], check=check)

    def start(
        self, host: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command that the lab ends when it closes. What it prints is in :meth:`output`."""
        path = self.directory / f"{len(self._processes):02}-{host}-{Path(argv[0]).name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                self.argv(host, argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environment(env),
                start_new_session=self._own_sessions,
            )
        self._processes.append(process)
        self._outputs[process.pid] = path
        return process

    def output_path(self, process: subprocess.Popen[str]) -> Path:
        """The file that takes what a started process prints, both streams."""
        return self._outputs[process.pid]

    def output(self, process: subprocess.Popen[str]) -> str:
        """What a started process has printed so far, both streams."""
        return self.output_path(process).read_text(errors="replace")

    def stop(self, process: subprocess.Popen[str]) -> int:
        """End a started process, by SIGTERM and then SIGKILL; its exit status."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(namespaces.END_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def wait_listening(self, host: str, port: int, *, sockets: int = 1, timeout: float = 60.0) -> None:
        """Return once ``sockets`` of the host listen on a TCP port. HostError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while self._listening(host, port) < sockets:
            if time.monotonic() > deadline:
                raise HostError(f"Nothing listens on port {port} of {host} after {timeout:.0f} s.")
            time.sleep(_POLL)

    # --- the links --------------------------------------------------------------------------------

    def counters(self, host: str, device: str) -> links.LinkCounters:
        """What this end of a link has sent and received."""
        return links.counters(self.namespace(host), device)

    def limit_rate(self, host: str, device: str, rate: str | None) -> None:
        """Let this end send at most ``rate`` (``100mbit``); None lifts it."""
        links.limit_rate(self.namespace(host), device, rate)

    def lose(self, host: str, device: str, permille: int) -> None:
        """Drop so many of a thousand packets that this end receives; 0 lifts it, 1000 is a cut."""
        links.lose(self.namespace(host), device, permille)

    def add_outside(self) -> None:
        """Give somebody far away addresses behind the exit's ends of both roads."""
        for address in (f"{OUTSIDE}/32", f"{OUTSIDE6}/128"):
            self._ip(EXIT, f"address add {address} dev lo")
        # a router asks for its neighbour with its address on that link
        self.run(EXIT, ["sysctl", "-qw", "net.ipv4.conf.all.arp_announce=2"])

    # --- construction -----------------------------------------------------------------------------

    def _build(self) -> None:
        for host in HOSTS:
            namespaces.create(self.namespace(host))
            self._set_kernel(host)
            self._write_configuration(host)
        for number, (device, one, one_addresses, other, other_addresses) in enumerate(_LINKS):
            # Where both ends have one index, the kernel takes up to a second to notice that a link is up.
            end = f"name {device} index {10 + number} netns {self.namespace(one)}"
            peer = f"name {device} index {20 + number} netns {self.namespace(other)}"
            namespaces.command(["ip", "link", "add", *end.split(), "type", "veth", "peer", *peer.split()])
            self._configure_end(one, device, one_addresses)
            self._configure_end(other, device, other_addresses)
        for gateway in (EXIT_A, EXIT_A6):
            self._ip(CLIENT, f"route add default via {gateway} dev {ROAD_A}")
        for host in HOSTS:
            self._wait_for_links(host)

    def _set_kernel(self, host: str) -> None:
        settings = {
            "ipv4/conf/all/rp_filter": "1" if host == CLIENT else "0",
            "ipv4/conf/default/rp_filter": "0",
            "ipv4/ip_forward": "0",
            "ipv6/conf/all/forwarding": "0",
            "ipv6/conf/all/disable_ipv6": "0",
            "ipv6/conf/default/disable_ipv6": "0",
            "ipv6/conf/default/accept_dad": "0",  # addresses are usable at once
            "ipv6/conf/default/accept_ra": "0",
            "ipv4/ping_group_range": "0 2147483647",  # the exit pings without privileges
        }
        with self.inside(host):
            for key, value in settings.items():
                try:
                    Path("/proc/sys/net", key).write_text(value)
                except OSError as error:
                    raise HostError(
                        f"The lab cannot set net.{key} ({error.strerror}): it needs root and IPv6."
                    ) from error

    def _write_configuration(self, host: str) -> None:
        directory = namespaces.configure(self.namespace(host))
        (directory / "resolv.conf").write_text(f"nameserver {_RESOLVERS[host]}\n")
        (directory / "hosts").write_text(
            f"127.0.0.1 localhost\n::1 localhost\n{EXIT_A} {DOMAIN_A}\n{EXIT_B} {DOMAIN_B}\n"
        )

    def _configure_end(self, host: str, device: str, addresses: Sequence[str]) -> None:
        for address in addresses:
            length = 24 if ipaddress.ip_address(address).version == 4 else 64
            self._ip(host, f"address add {address}/{length} dev {device}")
        self._ip(host, f"link set dev {device} mtu 1500 up")

    def _wait_for_links(self, host: str) -> None:
        """The kernel brings a link up, and IPv6 addresses into use, a little after it was told to."""
        deadline = time.monotonic() + namespaces.COMMAND_TIMEOUT
        while True:
            devices = json.loads(self._ip(host, "-j address show"))[1:]
            tentative = [item for device in devices for item in device["addr_info"] if "tentative" in item]
            if not tentative and all(device["operstate"] == "UP" for device in devices):
                return
            if time.monotonic() > deadline:
                raise HostError(f"The links of {host} do not come up: see `dmesg`.")
            time.sleep(_POLL)

    def _ip(self, host: str, words: str) -> str:
        return namespaces.command(["ip", "-n", self.namespace(host), *words.split()])

    def _listening(self, host: str, port: int) -> int:
        with self.inside(host):
            tables = [Path("/proc/thread-self/net", name).read_text() for name in ("tcp", "tcp6")]
        rows = [line.split() for table in tables for line in table.splitlines()[1:]]
        return sum(row[3] == _LISTEN_STATE and int(row[1].rpartition(":")[2], 16) == port for row in rows)

    # --- signals ----------------------------------------------------------------------------------

    def _watch_for_signals(self) -> None:
        for number in _ENDING:
            if signal.getsignal(number) == signal.SIG_DFL:
                with contextlib.suppress(ValueError):  # not the main thread: its owner sees to signals
                    self._old_handlers[number] = signal.signal(number, _leave)

    def _forget_signals(self) -> None:
        while self._old_handlers:
            signal.signal(*self._old_handlers.popitem())


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
