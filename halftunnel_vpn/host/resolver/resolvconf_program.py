"""The program resolvconf(8), Debian's or openresolv, which merges the resolvers of all interfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.external_program import ExternalProgram
from halftunnel_vpn.host.resolver import resolv_conf_file

KIND: Final = "resolvconf"

PROGRAM_TIMEOUT: Final = 20.0
"""Seconds within which it must end. It runs the hooks of other programs."""

MAXNS: Final = 3
"""Servers that programs read from a resolv.conf(5), and that Debian's resolvconf writes to it."""

INTERFACE_ORDER: Final = Path("/etc/resolvconf/interface-order")
"""The order of precedence of Debian's resolvconf. Only names that match a line of it come first."""

_DIRECTORY: Final = Path("/run/resolvconf")
_RESOLVCONF: Final = ExternalProgram(
    "resolvconf",
    missing="write the host's servers into /etc/resolv.conf",
    slow="see what its hooks do",
)


def manages(path: Path) -> bool:
    """Return whether resolvconf writes ``path`` (/etc/resolv.conf). An alias of resolvectl does not count."""
    program = _RESOLVCONF.find()
    if program is None or Path(program).resolve().name == "resolvectl":
        return False
    target = path.resolve()
    if target.is_relative_to(_DIRECTORY):
        return not resolv_conf_file.is_mount_point(target)
    content = resolv_conf_file.read(path) or b""
    return resolv_conf_file.writer_of(content) == "resolvconf"


def record_name(device: str) -> str:
    """Return the name of our record in resolvconf: one that comes before all others."""
    try:
        lines = INTERFACE_ORDER.read_text(errors="replace").splitlines()
    except OSError:
        return device
    prefixes = [line.removesuffix("*") for line in lines if line.endswith("*") and line[:-1].isalnum()]
    return f"{prefixes[0]}.{device}" if prefixes else device


def add(record: str, servers: tuple[str, ...]) -> str | None:
    """Put the servers before all others and write all files. Return a sentence on failure, otherwise None."""
    text = "".join(f"nameserver {server}\n" for server in servers)
    arguments = ["-a", record]
    if not _is_debians():
        arguments = ["-m", "0", "-x", *arguments]  # openresolv: metric 0 and exclusive
    problem = _run(arguments, text)
    # If the record is unchanged, resolvconf writes nothing, even if another program has changed the file.
    return _run(["-u"], "") if problem is None else problem


def remove(record: str) -> str | None:
    """Remove the servers. Harmless if they are not there. Return a sentence on failure."""
    return _run(["-f", "-d", record] if not _is_debians() else ["-d", record], "")


def difference(path: Path, servers: tuple[str, ...]) -> str | None:
    """Return how ``path`` differs from the expected result; None if the tunnel's servers come first."""
    found = resolv_conf_file.servers_in(resolv_conf_file.read(path) or b"")
    # A forwarder of the host (e.g. dnsmasq) may have got our servers instead, and be the only entry.
    if found[:MAXNS][: len(servers)] == list(servers[:MAXNS]) or found in (["127.0.0.1"], ["::1"]):
        return None
    return f"{path} does not name the tunnel's servers first."


def _is_debians() -> bool:
    """Return whether it is Debian's program, which has no version option and prints its name."""
    try:
        version = _RESOLVCONF.run(["--version"], timeout=PROGRAM_TIMEOUT)
    except HostError:
        return False
    return version.stdout.startswith("Debian resolvconf")


def _run(arguments: list[str], text: str) -> str | None:
    """Run it; return a sentence on failure."""
    try:
        result = _RESOLVCONF.run(arguments, text=text, timeout=PROGRAM_TIMEOUT)
    except HostError as error:
        return str(error)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"resolvconf failed: {reason}"
    return None
