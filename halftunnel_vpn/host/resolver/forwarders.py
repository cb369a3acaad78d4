"""The servers behind a DNS forwarder of this host (dnsmasq, unbound, systemd-resolved).

While a kill switch holds, or the tunnel has no leg, the queries of a forwarder get no answer. The tunnel then
asks the servers behind it directly, on its own marked sockets, for the names of its exits only. They are
found in the configuration, the command line and the lease files of forwarders.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from halftunnel_vpn.host.resolver import resolv_conf_file

MAX_SERVERS: Final = 6
"""Servers behind a forwarder that are queried."""

MAX_FILES: Final = 256
"""Files that are read in one search."""

MAX_BYTES: Final = 256 * 1024
"""Bytes of one file that are read."""

_DNSMASQ: Final = ("etc/dnsmasq.conf", "etc/dnsmasq.d/*", "etc/NetworkManager/dnsmasq.d/*")
_UNBOUND: Final = ("etc/unbound/unbound.conf", "etc/unbound/unbound.conf.d/*", "etc/unbound/*.conf")

_RESOLV_CONFS: Final = (
    # What DHCP and the like have configured; kept by the program that put a forwarder before it.
    "run/systemd/resolve/resolv.conf",
    "run/NetworkManager/no-stub-resolv.conf",
    "run/NetworkManager/resolv.conf",
    "run/dnsmasq/resolv.conf",
    "run/resolvconf/interface/*",
    "run/resolvconf/interfaces/*",
    "etc/resolv.conf.dnsmasq",
    "etc/resolv.dnsmasq.conf",
)

_LEASES: Final = ("run/systemd/netif/links/*", "run/systemd/netif/leases/*", "run/systemd/netif/state")

_OPTIONS: Final = {"-S": "server", "-r": "resolv-file", "-C": "conf-file", "-7": "conf-dir"}
"""dnsmasq's short options of interest, and their long names."""

_FORWARD_ZONE: Final = re.compile(r"^\s*forward-zone:", re.MULTILINE)
_NAME_OF_ZONE: Final = re.compile(r'^\s*name:\s*"?([^"\s#]*)', re.MULTILINE)
_FORWARD_ADDRESS: Final = re.compile(r'^\s*forward-addr:\s*"?([^"\s]+)', re.MULTILINE)


def is_forwarder(server: str) -> bool:
    """Return whether a nameserver is a program of this host."""
    return ipaddress.ip_address(server).is_loopback


def servers_behind(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the servers that this host's forwarders ask on port 53, most likely first; empty if unknown."""
    return Search(root).run()


class Search:
    """One search through the files below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: set[Path] = set()
        self._found: dict[str, None] = {}

    def run(self) -> tuple[str, ...]:
        """Run the search; see :func:`servers_behind`."""
        for arguments in self._dnsmasq_commands():
            self._read_dnsmasq(arguments)
        for text in self._texts(_DNSMASQ):
            self._read_dnsmasq(text.splitlines())
        for text in self._texts(_UNBOUND):
            self._read_unbound(text)
        for text in self._texts(_RESOLV_CONFS):
            self._add(resolv_conf_file.servers_in(text.encode()))
        for text in self._texts(_LEASES):
            for line in text.splitlines():
                if line.startswith("DNS="):
                    self._add(line.removeprefix("DNS=").split())
        return tuple(self._found)[:MAX_SERVERS]

    def _add(self, servers: Iterable[str]) -> None:
        for server in servers:
            try:
                address = ipaddress.ip_address(server)
            except ValueError:
                continue
            if not address.is_loopback and not address.is_unspecified:
                self._found[str(address)] = None

    def _dnsmasq_commands(self) -> Iterator[list[str]]:
        """Yield the options of each dnsmasq in this network namespace, as lines of its configuration."""
        for process in resolv_conf_file.processes_here("dnsmasq"):
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")[1:]
            except OSError:
                continue  # the process has ended in the meantime
            lines = []
            for number, word in enumerate(words):
                if word.startswith("--"):
                    lines.append(word[2:])
                elif word in _OPTIONS and number + 1 < len(words):
                    lines.append(f"{_OPTIONS[word]}={words[number + 1]}")
                elif word[:2] in _OPTIONS:
                    lines.append(f"{_OPTIONS[word[:2]]}={word[2:]}")
            yield lines

    def _read_dnsmasq(self, lines: Iterable[str]) -> None:
        """Read lines of dnsmasq.conf(5): ``server=ADDRESS[#PORT][@SOURCE]``, and files that it names."""
        for line in lines:
            key, equals, value = (part.strip() for part in line.partition("=")[:3])
            if not equals:
                continue
            if key == "server":
                address, _, port = value.partition("@")[0].partition("#")
                if port in ("", "53"):
                    self._add([address])  # a value that begins with / is for one domain and is no address
            elif key == "resolv-file":
                for text in self._texts([value.lstrip("/")]):
                    self._add(resolv_conf_file.servers_in(text.encode()))
            elif key in ("conf-file", "servers-file"):
                for text in self._texts([value.lstrip("/")]):
                    self._read_dnsmasq(text.splitlines())
            elif key == "conf-dir":
                for text in self._texts([value.split(",")[0].strip("/") + "/*"]):
                    self._read_dnsmasq(text.splitlines())

    def _read_unbound(self, text: str) -> None:
        """Read the ``forward-zone:`` clauses of unbound.conf(5) that apply to every name."""
        for clause in _FORWARD_ZONE.split(text)[1:]:
            name = _NAME_OF_ZONE.search(clause)
            if name is None or name[1] != ".":
                continue
            for address in _FORWARD_ADDRESS.findall(clause):
                host, _, port = address.partition("#")[0].partition("@")
                if port in ("", "53"):
                    self._add([host])

    def _texts(self, patterns: Iterable[str]) -> Iterator[str]:
        for pattern in patterns:
            try:
                paths = sorted(self._root.glob(pattern)) if "*" in pattern else [self._root / pattern]
            except (OSError, ValueError, NotImplementedError):
                continue
            for path in paths:
                if path in self._read or len(self._read) >= MAX_FILES:
                    continue
                self._read.add(path)
                try:
                    if os.path.isfile(path):
                        with path.open("rb") as file:
                            yield file.read(MAX_BYTES).decode(errors="replace")
                except OSError:
                    continue
