"""Network namespaces by name: made, entered, emptied and removed. See ip-netns(8) and setns(2)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError

PREFIX: Final = "htlab"
"""Names are ``htlab-PID-SERIAL-HOST``: whose pid is gone is a leftover."""

CONFIGURATION: Final = Path("/etc/netns")
"""`ip netns exec NAME` mounts the files of ``/etc/netns/NAME`` over those of /etc."""

COMMAND_TIMEOUT: Final = 30.0
"""Seconds within which a command that only sets something up must end."""

END_TIMEOUT: Final = 30.0
"""Seconds a process may take to end by itself before it is killed: far more than an exit takes at most.

That drains its streams (stop_timeout), and then waits for its legs' last words (CLOSE_TIMEOUT).
"""

_RUNTIME: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000


def command(argv: Sequence[str], *, text: str | None = None) -> str:
    """Run a command that sets something up, ``text`` on its input; its output. HostError when it fails."""
    try:
        result = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed: install iproute2 and nftables.") from error
    if result.returncode:
        raise HostError(f"`{' '.join(argv)}` failed: {result.stderr.strip() or 'no reason given'}")
    return result.stdout


def create(name: str) -> None:
    """Make a namespace with its loopback up."""
    command(["ip", "netns", "add", name])
    command(["ip", "-n", name, "link", "set", "dev", "lo", "up"])


def configure(name: str) -> Path:
    """Make the directory of the namespace's own files for /etc."""
    directory = CONFIGURATION / name
    while True:
        CONFIGURATION.mkdir(exist_ok=True)
        try:
            directory.mkdir()
        except FileNotFoundError:  # another lab has just removed its last one, and with it the place for all
            continue
        return directory


def configure_resolver(name: str, address: str) -> None:
    """Name the resolver of a namespace whose directory was made."""
    (CONFIGURATION / name / "resolv.conf").write_text(f"nameserver {address}\n")


def wait_for_device(name: str, device: str, timeout: float) -> None:
    """Return when the namespace has the device. HostError if it has none after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            command(["ip", "-n", name, "link", "show", "dev", device])
            return
        except HostError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def delete(name: str) -> None:
    """End what runs in the namespace and remove it with its configuration; harmless when it is gone."""
    end_processes(name)
    if (_RUNTIME / name).exists():
        try:
            command(["ip", "netns", "del", name])
        except HostError:
            if (_RUNTIME / name).exists():  # else somebody else has swept at the same time
                raise
    shutil.rmtree(CONFIGURATION / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        CONFIGURATION.rmdir()  # only when it is empty


def names() -> list[str]:
    """The namespaces of all labs on this machine, living and dead."""
    return sorted(path.name for path in _RUNTIME.glob(f"{PREFIX}-*"))


def owner_lives(name: str) -> bool:
    """Whether the process that made a namespace (or directory) lives; True for a foreign name."""
    pid = name.split("-")[1]
    return not pid.isdigit() or Path("/proc", pid).exists()


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Put this thread into the namespace; sockets made here stay there. Never hold it across an await."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as outside, open(_RUNTIME / name, "rb") as wanted:
        _enter(libc, wanted.fileno())
        try:
            yield
        finally:
            _enter(libc, outside.fileno())


def end_processes(name: str) -> None:
    """Ask every process in the namespace to end, then make it."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)
        deadline = time.monotonic() + END_TIMEOUT
        while _processes(name) and time.monotonic() < deadline:
            time.sleep(0.01)


def _processes(name: str) -> list[int]:
    """The processes in the namespace, never this one (it may be in there)."""
    if not (_RUNTIME / name).exists():
        return []
    result = subprocess.run(
        ["ip", "netns", "pids", name], capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
    )
    return [int(word) for word in result.stdout.split() if int(word) != os.getpid()]


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise HostError(f"The network namespace cannot be entered ({os.strerror(code)}): run this as root.")
