"""The plain /etc/resolv.conf: read it, write it in place, restore it exactly, find its other writers."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError

RESOLV_CONF: Final = Path("/etc/resolv.conf")

MARKER: Final = b"# Half-Tunnel wrote this file. The original comes back when the tunnel goes down.\n"

MAX_RESOLV_CONF: Final = 65536
"""Bytes of the largest resolver configuration that we keep."""

_WRITERS: Final = (
    # A text in the file's comments, and the program that writes it.
    ("NetworkManager", "NetworkManager"),
    ("resolvconf", "resolvconf"),
    ("systemd-resolved", "systemd-resolved"),
    ("systemd-networkd", "systemd-networkd"),
    ("dhcpcd", "dhcpcd"),
    ("dhclient", "dhclient"),
    ("connman", "ConnMan"),
    ("Connection Manager", "ConnMan"),
    ("tailscale", "Tailscale"),
    ("mullvad", "Mullvad"),
    ("netconfig", "netconfig"),
    ("cloud-init", "cloud-init"),
)

_SILENT_WRITERS: Final = {
    "dhclient": "dhclient",
    "udhcpc": "udhcpc",
    "pppd": "pppd",
    "NetworkManager": "NetworkManager",
}
"""Programs that leave no name in the file, by the command name in the kernel."""


def servers_in(content: bytes) -> list[str]:
    """Return the addresses of the `nameserver` lines, in order, with scope (%eth0). See resolv.conf(5)."""
    servers = []
    for line in content.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                servers.append(str(ipaddress.ip_address(words[1])))
            except ValueError:
                continue
    return servers


def read(path: Path) -> bytes | None:
    """Return the file's content; None if there is no file. Raises HostError if it cannot be kept.

    Zeros at its end are not content. They appear when one program truncates the file while another one
    writes a shorter content.
    """
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
    return content.rstrip(b"\0")


def render(servers: tuple[str, ...], original: bytes | None) -> bytes:
    """Return our content: the tunnel's servers, with the search list and options of the original."""
    kept = [
        line
        for line in (original or b"").splitlines()
        if line.split()[:1] in ([b"search"], [b"domain"], [b"options"])
    ]
    return MARKER + b"".join(line + b"\n" for line in [*(f"nameserver {s}".encode() for s in servers), *kept])


def write(path: Path, content: bytes) -> str | None:
    """Write in place (it may be a bind mount). Return a sentence if that fails, otherwise None."""
    try:
        descriptor = _open_to_write(path)
        try:
            # The file is never empty or half-written: one call writes the content and blanks up to the old
            # end.
            os.pwrite(descriptor, content.ljust(os.fstat(descriptor).st_size, b"\n"), 0)
            # Only truncate, never grow: another program may have written a shorter content in the meantime.
            if os.fstat(descriptor).st_size > len(content):
                os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"{path} could not be written ({error.strerror}): the host keeps its own DNS servers."
    return None


def _open_to_write(path: Path) -> int:
    """Return a descriptor of the file, which is created if it does not exist. Raises OSError."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        os.fchmod(descriptor, 0o644)  # every program must be able to read it, whatever the umask is
        return descriptor


def restore(path: Path, original: bytes | None) -> str | None:
    """Restore the original unless another program has written the file. Return a sentence on failure."""
    try:
        content = read(path)
    except HostError as error:
        return str(error)
    if content is None or not content.startswith(MARKER):
        return None
    if original is not None:
        return write(path, original)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return f"{path} could not be removed ({error.strerror}): remove it, there was none before."
    return None


def writer_of(content: bytes | None) -> str:
    """Return who wrote the file: by its comments, otherwise by the running programs. For a sentence."""
    if content is None:
        return "a program that removed it"
    comments = b"\n".join(line for line in content.splitlines() if line.lstrip()[:1] in (b"#", b";"))
    text = comments.decode(errors="replace").lower()
    for needle, name in _WRITERS:
        if needle.lower() in text:
            return name
    running = sorted(_SILENT_WRITERS[name] for name in commands_here() & _SILENT_WRITERS.keys())
    return f"another program, perhaps {' or '.join(running)}" if running else "an unknown program"


def commands_here() -> set[str]:
    """Return the commands (15 bytes, as in the kernel) that run in this network namespace."""
    return {command for _, command in _commands()}


def processes_here(command: str) -> list[Path]:
    """Return the /proc directories of the processes of this network namespace that run ``command``."""
    return [process for process, name in _commands() if name == command]


def _commands() -> Iterator[tuple[Path, str]]:
    here = os.stat("/proc/thread-self/ns/net")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if _is_in_network(process, here):
                yield process, (process / "comm").read_text(errors="replace").strip()
        except OSError:  # the process has ended in the meantime
            continue


def _is_in_network(process: Path, network: os.stat_result) -> bool:
    """Return whether a process (its /proc directory) is in that namespace. Raises OSError if it has ended."""
    try:
        return os.path.samestat(os.stat(process / "ns/net"), network)
    except PermissionError:  # another user's, and we lack CAP_SYS_PTRACE: assume that it is
        return True


def is_mount_point(path: Path) -> bool:
    """Return whether the file is a mount point, as under `ip netns exec`."""
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return any(line.split()[4] == str(path) for line in mounts)
