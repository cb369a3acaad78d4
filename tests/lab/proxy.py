"""`htvpn proxy` on the client of a lab, as the user `nobody` with an empty capability set."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from lab.topology import CLIENT, Lab
from lab.tunnel import CONNECT_TIMEOUT, LabTunnel

NOBODY: Final = (
    "setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups",
    "--inh-caps", "-all", "--bounding-set", "-all", "--no-new-privs",
)  # fmt: skip
"""What makes a command one of a user without any privilege."""

NOBODY_ID: Final = 65534

_POLL: Final = 0.05


def interpreter() -> str:
    """Return a Python that every user may run: this one, or the system's where this is in a home of root's.

    Raises HostError when there is none of this version.
    """
    for candidate in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        path = Path(candidate)
        ways = (*path.absolute().parents, *path.resolve().parents)
        if path.exists() and all(parent.stat().st_mode & 0o001 for parent in ways):
            return candidate
    raise HostError(
        f"The user nobody cannot run {sys.executable}: install Python where every user may run it."
    )


def environment(home: Path) -> dict[str, str]:
    """Return what makes :func:`interpreter` find the packages of this one."""
    paths = [Lab.environment()["PYTHONPATH"], sysconfig.get_path("purelib")]
    return {"HOME": str(home), "STATE_DIRECTORY": "", "PYTHONPATH": os.pathsep.join(paths)}


class LabProxy:
    """A proxy through the exit of ``tunnel``. ``ports`` are the TCP ports that it is going to listen on."""

    def __init__(self, tunnel: LabTunnel, *arguments: str, ports: tuple[int, ...]) -> None:
        self.lab = tunnel.lab
        self.directory: Path = tunnel.lab.directory / "nobody"
        tunnel.lab.directory.chmod(0o711)
        self.directory.mkdir(exist_ok=True)
        profile = self.directory / "profile.toml"
        shutil.copy(tunnel.profile, profile)
        for path in (self.directory, profile):
            os.chown(path, NOBODY_ID, NOBODY_ID)
        profile.chmod(0o600)
        self._notified = self._listen(self.directory / "notify.sock")
        argv = [*NOBODY, interpreter(), "-m", "halftunnel_vpn.cli", "proxy", str(profile), *arguments]
        env = environment(Path("/nonexistent")) | {"NOTIFY_SOCKET": str(self.directory / "notify.sock")}
        self.process: subprocess.Popen[str] = self.lab.start(CLIENT, argv, env=env)
        self._wait(ports)

    def output(self) -> str:
        """What it has printed."""
        return self.lab.output(self.process)

    def stop(self) -> int:
        """End it as SIGTERM does; its exit code."""
        return self.lab.stop(self.process)

    @staticmethod
    def _listen(path: Path) -> socket.socket:
        """Where a service manager hears that the proxy is ready (sd_notify(3))."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(path))
        path.chmod(0o666)
        sock.settimeout(_POLL)
        return sock

    def _wait(self, ports: tuple[int, ...]) -> None:
        deadline = time.monotonic() + CONNECT_TIMEOUT
        said = b""
        while b"READY=1" not in said:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise HostError(f"The proxy does not serve:\n{self.output()}")
            with contextlib.suppress(TimeoutError):
                said = self._notified.recv(4096)
        self._notified.close()
        for port in ports:
            self.lab.wait_listening(CLIENT, port)
