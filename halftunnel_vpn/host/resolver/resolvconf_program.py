"""The program resolvconf(8), Debian's or openresolv, that merges what all interfaces say of resolvers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.external_program import ExternalProgram
from halftunnel_vpn.host.resolver import resolv_conf_file

KIND: Final = "resolvconf"

PROGRAM_TIMEOUT: Final = 20.0
"""Seconds within which it must end: it runs the hooks of other programs."""

MAXNS: Final = 3
"""Servers that programs read of a resolv.conf(5), and that Debian's resolvconf writes there."""

INTERFACE_ORDER: Final = Path("/etc/resolvconf/interface-order")
"""Where Debian's has the order of precedence: only names that begin as a line there come first."""

_DIRECTORY: Final = Path("/run/resolvconf")
_RESOLVCONF: Final = ExternalProgram(
    "resolvconf",
    missing="write the host's servers into /etc/resolv.conf",
    slow="see what its hooks do",
)


def rules(path: Path) -> bool:
    """Whether ``path`` (/etc/resolv.conf) is written by resolvconf: a real one, no alias of resolvectl."""
    program = _RESOLVCONF.find()
    if program is None or Path(program).resolve().name == "resolvectl":
        return False
    target = path.resolve()
    if target.is_relative_to(_DIRECTORY):
        return not resolv_conf_file.is_mount_point(target)
    content = resolv_conf_file.read(path) or b""
    return resolv_conf_file.writer_of(content) == "resolvconf"


def record_name(device: str) -> str:
    """The name under which resolvconf knows the device's servers: one that comes before all others."""
    try:
        lines = INTERFACE_ORDER.read_text(errors="replace").splitlines()
    except OSError:
        return device
    prefixes = [line.removesuffix("*") for line in lines if line.endswith("*") and line[:-1].isalnum()]
    return f"{prefixes[0]}.{device}" if prefixes else device


def add(record: str, servers: tuple[str, ...]) -> str | None:
    """Put the servers before all others and have all files written; a sentence when that fails, else None."""
    text = "".join(f"nameserver {server}\n" for server in servers)
    arguments = ["-a", record]
    if not _is_debians():
        arguments = ["-m", "0", "-x", *arguments]  # openresolv: first, and exclusive
    problem = _run(arguments, text)
    # A record that it has already makes it write nothing, whatever somebody else has written since.
    return _run(["-u"], "") if problem is None else problem


def remove(record: str) -> str | None:
    """Take the servers out again, harmless when they are not there; a sentence when that fails."""
    return _run(["-f", "-d", record] if not _is_debians() else ["-d", record], "")


def difference(path: Path, servers: tuple[str, ...]) -> str | None:
    """How ``path`` differs from what should have come out; None when the tunnel's servers stand first."""
    found = resolv_conf_file.servers_in(resolv_conf_file.read(path) or b"")
    # A host's own forwarder (dnsmasq, say) may have been told instead, and stand there alone.
    if found[:MAXNS][: len(servers)] == list(servers[:MAXNS]) or found in (["127.0.0.1"], ["::1"]):
        return None
    return f"{path} does not name the tunnel's servers first."


def _is_debians() -> bool:
    """Return whether it is Debian's own one, which takes no options and prints its name."""
    try:
        said = _RESOLVCONF.run(["--version"], timeout=PROGRAM_TIMEOUT)
    except HostError:
        return False
    return said.stdout.startswith("Debian resolvconf")


def _run(arguments: list[str], text: str) -> str | None:
    """Run it; return a sentence when it fails."""
    try:
        result = _RESOLVCONF.run(arguments, text=text, timeout=PROGRAM_TIMEOUT)
    except HostError as error:
        return str(error)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"resolvconf failed: {reason}"
    return None
