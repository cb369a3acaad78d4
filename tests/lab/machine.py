"""A machine with a real systemd as PID 1: systemd-nspawn over a Debian tree that it leaves as it is.

Its network is a namespace that somebody else made, or one of its own with nothing in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from halftunnel_vpn.errors import HostError

BOOT_TIMEOUT: Final = 180.0
"""Seconds from the start of PID 1 until systemd has started everything."""

OFF_TIMEOUT: Final = 90.0
"""Seconds a machine may take to power off before it is killed."""

_POLL: Final = 0.05

_PREPARE: Final = """
set -e
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1"
echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
shift
exec "$@"
"""
"""A cgroup of its own, or two machines at once collide; seen through a mount of its own."""

_CLEAN: Final = """
mount -t cgroup2 cgroup2 /sys/fs/cgroup
[ ! -d "/sys/fs/cgroup/$1" ] || find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +
"""

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}

CompletedText = subprocess.CompletedProcess[str]


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise HostError(f"the disk of a machine cannot be mounted: {done.stderr.strip()}")


class Machine:
    """One machine in ``directory``, over ``tree``; a context manager that ends it whatever happens.

    ``namespace`` is the name of a network namespace (ip-netns(8)). Raises HostError.
    """

    def __init__(self, name: str, tree: Path, directory: Path, *, namespace: str | None = None) -> None:
        self.name = f"htlab-{os.getpid()}-{name}"
        self.root = directory / name
        self._console = directory / f"{name}.console"
        self._namespace = namespace
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._layers = directory / f"{name}.layers"
        self._mount(tree)

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.power_off(force=True)
        self._unmount()

    # --- disk -----------------------------------------------------------------------------------

    def _mount(self, tree: Path) -> None:
        """The tree below, what the machine writes above it in memory: nothing to copy, nothing to delete."""
        for path in (self.root, self._layers):
            path.mkdir()
        try:
            _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(self._layers))
            for layer in ("upper", "work"):
                (self._layers / layer).mkdir()
            options = f"lowerdir={tree},upperdir={self._layers}/upper,workdir={self._layers}/work"
            _mount("-t", "overlay", "-o", options, "overlay", str(self.root))
        except HostError:
            self._unmount()
            raise

    def _unmount(self) -> None:
        for path in (self.root, self._layers):
            subprocess.run(
                ["umount", "--lazy", "--quiet", str(path)], capture_output=True, timeout=30, check=False
            )
            with contextlib.suppress(OSError):
                path.rmdir()

    # --- power -----------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start, and wait until systemd has started everything that it wants to."""
        network = (
            ["--private-network"]
            if self._namespace is None
            else [f"--network-namespace-path=/run/netns/{self._namespace}"]
        )
        nspawn = [
            "systemd-nspawn", "--quiet", "--boot", "--directory", str(self.root), f"--machine={self.name}",
            "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no", "--resolv-conf=off",
            "--timezone=off", "--capability=all", "--system-call-filter=bpf @keyring", "--bind=/dev/net/tun",
            *network,
        ]  # fmt: skip
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
        argv += ["sh", "-c", _PREPARE, "sh", self.name, *nspawn]
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                env=os.environ | {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
            )  # fmt: skip
        deadline = time.monotonic() + BOOT_TIMEOUT
        self._leader = self._wait_for_leader(deadline)
        while True:
            state = self._systemctl("is-system-running", "--wait").stdout.strip()
            if state in ("running", "degraded"):
                return
            if time.monotonic() > deadline:
                raise HostError(
                    f"the machine {self.name} does not come up ({state}): {self.console()[-2000:]}"
                )
            time.sleep(_POLL)

    def power_off(self, *, force: bool = False) -> None:
        """Shut down; with ``force``, a machine that does not is killed and no error."""
        if self._nspawn is None:
            return
        try:
            if self._leader:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._systemctl("poweroff")
            self._nspawn.wait(OFF_TIMEOUT if self._leader else 1)
        except subprocess.TimeoutExpired:
            self.kill()
            if not force:
                raise HostError(f"the machine {self.name} did not power off") from None
        finally:
            self._gone()

    def kill(self) -> None:
        """Pull the plug: nothing in it runs another instruction."""
        assert self._nspawn is not None
        if self._leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._nspawn.wait(5)
        self._nspawn.kill()
        self._nspawn.wait()
        self._gone()

    def console(self) -> str:
        """What systemd has printed."""
        return self._console.read_text(errors="replace")

    # --- inside ----------------------------------------------------------------------------------

    def argv(self, argv: Sequence[str], *, user: str | None = None) -> list[str]:
        """The command line that runs ``argv`` in the machine, as a transient unit (with a cgroup)."""
        words = [
            "nsenter",
            "-t",
            str(self._leader),
            "-a",
            "systemd-run",
            "--quiet",
            "--pipe",
            "--wait",
            "--collect",
        ]
        if user is not None:
            words += ["--uid", user]
        return [*words, "--", *argv]

    def run(
        self,
        command: str,
        *,
        user: str | None = None,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
    ) -> CompletedText:
        """A shell command in the machine, to its end. With ``check``, HostError when it fails."""
        if user is None:
            argv = ["nsenter", "-t", str(self._leader), "-a", "sh", "-c", command]
        else:
            argv = self.argv(["sh", "-c", command], user=user)
        try:
            done = subprocess.run(
                argv, input=input, stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
                env=_ENVIRONMENT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise HostError(f"`{command}` on {self.name} did not end within {timeout:.0f} s") from error
        if check and done.returncode:
            raise HostError(
                f"`{command}` on {self.name} ended with {done.returncode}: {done.stderr.strip()} "
                f"{done.stdout.strip()}"
            )
        return done

    def wait_until(self, command: str, *, timeout: float = 90.0) -> None:
        """Return when a shell command succeeds; HostError with the journal's end if it never does."""
        deadline = time.monotonic() + timeout
        while self.run(command, check=False).returncode:
            if time.monotonic() > deadline:
                journal = self.run("journalctl -n 40 --no-pager -o short", check=False).stdout
                raise HostError(f"`{command}` on {self.name} is not true after {timeout:.0f} s:\n{journal}")
            time.sleep(_POLL)

    # --- details ---------------------------------------------------------------------------------

    def _systemctl(self, *words: str) -> CompletedText:
        argv = ["nsenter", "-t", str(self._leader), "-a", "systemctl", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=BOOT_TIMEOUT, check=False)

    def _wait_for_leader(self, deadline: float) -> int:
        """PID 1 of the machine, seen from here."""
        assert self._nspawn is not None
        while time.monotonic() < deadline and self._nspawn.poll() is None:
            for child in self._children():
                with contextlib.suppress(OSError):
                    status = Path("/proc", child, "status").read_text()
                    inner = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[
                        -1
                    ]
                    if inner == "1" and status.startswith("Name:\tsystemd\n"):
                        return int(child)
            time.sleep(_POLL)
        raise HostError(f"the machine {self.name} does not boot: {self.console()[-2000:]}")

    def _children(self) -> list[str]:
        assert self._nspawn is not None
        task = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        try:
            return task.read_text().split()
        except OSError:
            return []

    def _gone(self) -> None:
        self._nspawn, self._leader = None, 0
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _CLEAN, "sh", self.name],
            capture_output=True, timeout=30, check=False,
        )  # fmt: skip
