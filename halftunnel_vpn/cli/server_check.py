"""`htvpn server check`: find out what keeps clients from an exit, a line for each finding.

Its files are read as the exit reads them at start. The rest depends on this host and its network.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import re
import socket
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from halftunnel_vpn.cli import server_directory
from halftunnel_vpn.client.diagnosis.finding import Finding, Outcome, failed, ok, skipped, warning
from halftunnel_vpn.config.server import ListenerConfig, ServerConfig
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.external_program import ExternalProgram
from halftunnel_vpn.protocol.certificates import expiry_of, names_in
from halftunnel_vpn.transport.name_lookup import look_up

DIRECTIONS = ("upstream", "downstream")

TIMEOUT = 3.0
"""Seconds for one name, one connection or one program."""

SOON = 14 * 86400.0
"""Seconds before its end from which a certificate should have been renewed."""

PING_GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")
"""Groups whose processes may send pings (icmp(7))."""

UNSYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2): nothing keeps the clock right."""

_TIMEX_BYTES = 256
_NFT = ExternalProgram("nft", "install the package nftables", "see 'nft list ruleset'")


def run(options: Namespace) -> int:
    """Print the findings; exit code 1 if one failed. Raises ConfigError for wrong files."""
    directory = Path(options.dir)
    config = server_directory.load(directory)
    from halftunnel_vpn.server.exit_files import ExitFiles

    ExitFiles.read(directory, config)
    files = ok("files", f"The exit in {directory} can be started or reloaded.")
    if options.files:
        print(files.text)
        return 0
    found = [files, *asyncio.run(diagnose(directory, config))]
    if options.json:
        print(json.dumps([asdict(finding) for finding in found]))
    else:
        for finding in found:
            print(f"{finding.outcome:8} {finding.subject}: {finding.text}")
    return int(any(finding.outcome is Outcome.FAILED for finding in found))


async def diagnose(directory: Path, config: ServerConfig) -> list[Finding]:
    """Return the findings about ports, names, certificates, the firewall, the clock and pings."""
    found = [check_port(name, listener) for name, listener in _listeners(config)]
    for name in DIRECTIONS:
        found += [await check_name(name, url) for url in getattr(config.public, name).urls]
    found += check_certificates(directory, config)
    found += [check_firewall(config), check_clock(), check_pings()]
    return found


def _listeners(config: ServerConfig) -> Iterator[tuple[str, ListenerConfig]]:
    """Yield each address and port once, with the directions that it serves."""
    up, down = config.listen.upstream, config.listen.downstream
    if (up.address, up.port) == (down.address, down.port):
        yield "upstream and downstream", up
    else:
        yield "upstream", up
        yield "downstream", down


def check_port(name: str, listener: ListenerConfig) -> Finding:
    """Bind the port, which works while nobody has it."""
    subject = f"port, {name}"
    where = f"{listener.address} port {listener.port}"
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((listener.address, listener.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return ok(subject, f"{where} is in use; if that is not the exit, 'ss -tlnp' shows by whom")
            if error.errno == errno.EACCES:
                return warning(
                    subject, f"{where} needs root or CAP_NET_BIND_SERVICE; the exit's unit has it, you do not"
                )
            return failed(
                subject,
                f"this host cannot listen on {where} ({error.strerror}): name an address of this host in "
                f"[listen.{name.split()[0]}], or 0.0.0.0",
            )
    return ok(subject, f"{where} is free: the exit does not run now")


async def check_name(name: str, url: str) -> Finding:
    """Resolve the host of a URL, and compare its addresses with those of this host."""
    host = urlsplit(url).hostname or ""
    subject = f"name, {name}"
    try:
        async with asyncio.timeout(TIMEOUT):
            addresses = await look_up(host)
    except (OSError, UnicodeError):  # TimeoutError is an OSError
        return failed(
            subject, f"{host} cannot be resolved: make its A or AAAA record, or correct [public.{name}] urls"
        )
    shown = ", ".join(addresses[:4])
    if any(_is_here(address) for address in addresses):
        return ok(subject, f"{host} leads to this host ({shown})")
    return warning(
        subject,
        f"{host} leads to {shown}, which is no address of this host: right behind a CDN, a proxy or NAT that "
        "passes connections on; otherwise correct its record",
    )


def _is_here(address: str) -> bool:
    """Whether this host has the address: a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


def check_certificates(directory: Path, config: ServerConfig, now: float | None = None) -> Iterator[Finding]:
    """Yield for each listener whether its certificate lasts and names the host that clients ask for."""
    at = time.time() if now is None else now
    for name in DIRECTIONS:
        listener: ListenerConfig = getattr(config.listen, name)
        public = getattr(config.public, name)
        subject = f"certificate, {name}"
        if not listener.tls:
            yield skipped(subject, "tls = false: the proxy before the exit has it")
            continue
        pem = (directory / listener.certificate).read_bytes()
        days = (expiry_of(pem) - at) / 86400
        names, addresses = names_in(pem)
        hosts = [urlsplit(url).hostname or "" for url in public.urls]
        missing = [host for host in hosts if not _is_named(host, names, addresses)]
        renew = f"'htvpn server certificate --direction {name}' installs a renewed one"
        if days <= 0:
            yield failed(subject, f"expired {-days:.0f} days ago: {renew}")
        elif missing:
            yield failed(
                subject, f"is not for {', '.join(missing)}, which clients ask for: {renew} that names them"
            )
        elif days * 86400 < SOON:
            yield warning(subject, f"expires in {days:.0f} days: {renew}")
        else:
            yield ok(subject, f"is for {', '.join(hosts)}, and expires in {days:.0f} days")


def _is_named(host: str, names: list[str], addresses: list[str]) -> bool:
    parent = host.partition(".")[2]
    return host in addresses or host in names or (bool(parent) and f"*.{parent}" in names)


def check_firewall(config: ServerConfig) -> Finding:
    """Look for an nftables chain that drops what comes in and names no port of ours (root)."""
    ports = sorted({listener.port for _, listener in _listeners(config)})
    try:
        done = _NFT.run(["-j", "list", "ruleset"], timeout=TIMEOUT)
    except HostError as error:
        return skipped("firewall", f"{error} A firewall must let TCP ports {_list(ports)} in.")
    if done.returncode:
        return skipped("firewall", "only root sees it: run this as root")
    return judge_firewall(json.loads(done.stdout or "{}").get("nftables", []), ports)


def judge_firewall(ruleset: list[dict[str, object]], ports: list[int]) -> Finding:
    """Return what a ruleset (`nft -j list ruleset`) means for TCP ``ports``."""
    chains = [item["chain"] for item in ruleset if "chain" in item]
    strict = [
        chain
        for chain in chains
        if isinstance(chain, dict) and chain.get("hook") == "input" and chain.get("policy") == "drop"
    ]
    if not strict:
        return ok("firewall", "nftables on this host drops no incoming connections by default")
    rules = json.dumps([item["rule"] for item in ruleset if "rule" in item])
    closed = [port for port in ports if not _mentions(rules, port)]
    if not closed:
        return ok("firewall", f"incoming connections are dropped by default, and rules name {_list(ports)}")
    opening = " and ".join(f"'ufw allow {port}/tcp'" for port in closed)
    return warning(
        "firewall",
        f"incoming connections are dropped by default, and no rule names TCP port {_list(closed)}: open it "
        f"({opening}, or the like); a provider's firewall may need the same",
    )


def _mentions(rules: str, port: int) -> bool:
    if re.search(rf"\b{port}\b", rules):
        return True
    ranges = re.findall(r'"range": \[(\d+), (\d+)\]', rules)
    return any(int(low) <= port <= int(high) for low, high in ranges)


def _list(ports: list[int]) -> str:
    return " and ".join(map(str, ports))


def check_clock() -> Finding:
    """Ask the kernel whether anything keeps the clock right: handshakes may differ by five minutes."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # struct timex; modes = 0 only reads
    state = ctypes.CDLL(None).adjtimex(buffer)
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if state != UNSYNCHRONISED:
        return ok("clock", f"is synchronised, {shown}")
    return warning(
        "clock",
        f"it is {shown}, and nothing keeps it right: install systemd-timesyncd or chrony; a client is "
        "refused at first when its clock differs by more than five minutes",
    )


def check_pings(groups: Path = PING_GROUPS) -> Finding:
    """Read whether a process without privileges may send pings."""
    advice = 'sysctl -w net.ipv4.ping_group_range="0 2147483647", and the same line in /etc/sysctl.d'
    try:
        low, high = map(int, groups.read_text().split())
    except (OSError, ValueError):
        return skipped("pings", f"{groups} cannot be read")
    if low == 0 and high >= 2**31 - 1:
        return ok("pings", "the exit may send pings")
    return warning("pings", f"pings of clients are not answered, everything else works: {advice}")
