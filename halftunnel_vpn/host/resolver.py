"""The host's resolver configuration: a plain /etc/resolv.conf, or systemd-resolved where that rules."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError

RESOLV_CONF: Final = Path("/etc/resolv.conf")

MARKER: Final = b"# Half-Tunnel wrote this file. The original comes back when the tunnel goes down.\n"

MAX_RESOLV_CONF: Final = 65536
"""Bytes of a resolver configuration that we are ready to keep."""

RESOLVECTL_TIMEOUT: Final = 10.0
"""Seconds within which one resolvectl command must end."""

_RESOLVED_STUBS: Final = {"127.0.0.53", "127.0.0.54"}
_RESOLVED_DIRECTORY: Final = Path("/run/systemd/resolve")
_RESOLVED_COMMAND: Final = "systemd-resolve"  # the kernel keeps 15 bytes of a command's name


def servers_in(content: bytes) -> list[str]:
    """The addresses of the `nameserver` lines, in order; a scope (%eth0) is left out. See resolv.conf(5)."""
    servers = []
    for line in content.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            address = words[1].partition("%")[0]
            try:
                servers.append(str(ipaddress.ip_address(address)))
            except ValueError:
                continue
    return servers


def system_servers(path: Path = RESOLV_CONF) -> tuple[str, ...]:
    """The resolvers this host uses by itself; ask before the tunnel's state is applied."""
    if uses_resolved(path):
        path = _RESOLVED_DIRECTORY / "resolv.conf"
    content = read(path) or b""
    servers = [] if content.startswith(MARKER) else servers_in(content)
    return tuple(server for server in servers if server not in _RESOLVED_STUBS)


# --- a plain file -------------------------------------------------------------------------------


def read(path: Path) -> bytes | None:
    """The file's content, None when there is none; HostError when it cannot be kept."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RESOLV_CONF + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(
            f"{path} cannot be read ({error.strerror}): set dns to none in the profile."
        ) from error
    if len(content) > MAX_RESOLV_CONF:
        raise HostError(f"{path} is longer than {MAX_RESOLV_CONF} bytes: shorten it.")
    return content


def render(servers: tuple[str, ...], original: bytes | None) -> bytes:
    """Our content: the tunnel's servers, and the search list and options of the original."""
    kept = [
        line
        for line in (original or b"").splitlines()
        if line.split()[:1] in ([b"search"], [b"domain"], [b"options"])
    ]
    return MARKER + b"".join(line + b"\n" for line in [*(f"nameserver {s}".encode() for s in servers), *kept])


def write(path: Path, content: bytes) -> str | None:
    """Write in place (it may be a bind mount); a sentence when that is not possible, else None."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # Never empty: first the new bytes in one call, then the end of a longer old content.
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"{path} could not be written ({error.strerror}): the host keeps its own DNS servers."
    return None


def restore(path: Path, original: bytes | None) -> str | None:
    """Put the original back, unless somebody else has written the file since; a sentence on failure."""
    content = read(path)
    if content is None or not content.startswith(MARKER):
        return None
    if original is not None:
        return write(path, original)
    path.unlink(missing_ok=True)
    return None


# --- systemd-resolved ---------------------------------------------------------------------------


def uses_resolved(path: Path) -> bool:
    """Whether ``path`` leads to a systemd-resolved that runs in this network namespace and takes orders."""
    content = read(path) or b""
    servers = set(servers_in(content))
    stub = bool(servers) and servers <= _RESOLVED_STUBS
    target = path.resolve()
    # `ip netns exec` mounts a namespace's own file over the target of the host's symlink.
    linked = target.is_relative_to(_RESOLVED_DIRECTORY) and not _is_mount_point(target)
    return (stub or linked) and shutil.which("resolvectl") is not None and _resolved_runs_here()


def set_resolved(device: str, servers: tuple[str, ...]) -> str | None:
    """Make the TUN the link for every name; a sentence when resolved does not take it, else None."""
    for arguments in (
        ["dns", device, *servers],
        ["domain", device, "~."],
        ["default-route", device, "yes"],
        ["llmnr", device, "no"],
        ["mdns", device, "no"],
    ):
        problem = _resolvectl(arguments)[1]
        if problem is not None:
            return f"systemd-resolved did not take the tunnel's servers: {problem}"
    return None


def resolved_servers(device: str) -> list[str]:
    """The servers that resolved has for the device."""
    output, _ = _resolvectl(["dns", device])
    _, _, listed = output.partition(":")  # Link 7 (htvpn0): 10.72.84.1
    return listed.split()


def revert_resolved(device: str) -> None:
    """Make resolved forget the device; it does so by itself when the device goes."""
    _resolvectl(["revert", device])


def _resolvectl(arguments: list[str]) -> tuple[str, str | None]:
    """The output, and a problem in a few words if there was one."""
    try:
        result = subprocess.run(
            ["resolvectl", *arguments],
            capture_output=True,
            text=True,
            timeout=RESOLVECTL_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        return "", "resolvectl is not installed."
    except subprocess.TimeoutExpired:
        return "", f"resolvectl did not answer within {RESOLVECTL_TIMEOUT:.0f} s."
    if result.returncode:
        return result.stdout, (result.stderr.strip().splitlines() or ["resolvectl failed."])[-1]
    return result.stdout, None


def _resolved_runs_here() -> bool:
    here = os.stat("/proc/thread-self/ns/net")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == _RESOLVED_COMMAND:
                if os.path.samestat(os.stat(process / "ns/net"), here):
                    return True
        except OSError:  # it ended while we looked
            continue
    return False


def _is_mount_point(path: Path) -> bool:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(path) for line in mounts)
