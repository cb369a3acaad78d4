"""The programs that rule a host's resolver configuration, real ones, run beside the machine's own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Lab

from halftunnel_vpn.host.resolver import resolvconf_program

UNPACKED = Path(__file__).parents[3] / ".venv" / "unpacked"
"""Where scripts/bootstrap unpacks the packages that must not be installed on the machine."""

RESOLVED_USER = 997

_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={bus}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy></busconfig>
"""

_START_RESOLVED = """set -e
mount --bind {here}/passwd /etc/passwd
mount --bind {here}/group /etc/group
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mkdir -p /run/systemd/resolve /run/systemd/netif
chown {user}:{user} /run/systemd/resolve
exec {program}
"""


def unpacked(package: str) -> Path:
    """The package's tree; the test fails where bootstrap has not been able to get it."""
    tree = UNPACKED / package
    assert tree.is_dir(), f"{tree} is missing: run `. scripts/bootstrap test` as root, with a network"
    return tree


class Resolved:
    """A systemd-resolved in this thread's network, and its own command to ask it what it knows."""

    def __init__(self, tree: Path, end: Callable[[], None]) -> None:
        self._resolvectl = tree / "usr/bin/resolvectl"
        self.end = end

    def ctl(self, *arguments: str) -> str:
        """What `resolvectl ARGUMENTS` prints."""
        asked = subprocess.run(
            [self._resolvectl, *arguments], capture_output=True, text=True, timeout=60, check=True
        )
        return asked.stdout


@contextlib.contextmanager
def running_resolved(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolved]:
    """A bus of its own and a systemd-resolved on it; DBUS_SYSTEM_BUS_ADDRESS leads there."""
    tree = unpacked("systemd-resolved")
    for folder in (directory, directory.parent):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # resolved is no root
    bus = directory / "bus"
    (directory / "bus.conf").write_text(_BUS.format(bus=bus))
    for name, line in (
        ("passwd", f"systemd-resolve:x:{RESOLVED_USER}:{RESOLVED_USER}::/:/usr/sbin/nologin\n"),
        ("group", f"systemd-resolve:x:{RESOLVED_USER}:\n"),
    ):
        known = Path("/etc", name).read_text()
        (directory / name).write_text(known if "systemd-resolve:" in known else known + line)
    candidates = [tree / "lib/systemd/systemd-resolved", tree / "usr/lib/systemd/systemd-resolved"]
    program = next(path for path in candidates if path.exists())
    script = _START_RESOLVED.format(here=directory, user=RESOLVED_USER, program=program)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={bus}")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.ExitStack() as stack:
        for command in (
            ["dbus-daemon", f"--config-file={directory / 'bus.conf'}", "--nofork"],
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        ):
            process = stack.enter_context(subprocess.Popen(command, **quiet))
            stack.callback(process.terminate)
            _wait_for(bus.exists)
        resolved = Resolved(tree, stack.pop_all().close)
        try:
            _wait_for(lambda: _answers(resolved))
            yield resolved
        finally:
            resolved.end()


def relocated_resolvconf(package: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A resolvconf whose files all stand below ``directory``; the resolv.conf that it writes."""
    shutil.copytree(unpacked(package), directory, symlinks=True)
    for folder in ("sbin", "lib/resolvconf", "etc/resolvconf/update.d"):
        for path in (directory / folder).glob("*"):
            if path.is_file():
                text = re.sub(
                    r"(?<![\w/}])/(etc|run|lib/resolvconf|sbin/resolvconf)\b",
                    rf"{directory}/\1",
                    path.read_text(),
                )
                path.write_text(text)
    (directory / "run/resolvconf/interface").mkdir(parents=True)
    (directory / "run/resolvconf/enable-updates").touch()
    resolv_conf = directory / "etc/resolv.conf"
    if package == "resolvconf":
        resolv_conf.symlink_to(directory / "run/resolvconf/resolv.conf")
    else:
        (directory / "etc/resolvconf.conf").write_text(f"resolv_conf={resolv_conf}\n")
    monkeypatch.setenv("PATH", str(directory / "sbin"), prepend=os.pathsep)
    return resolv_conf


@pytest.fixture
def resolved(client: Lab, resolv_conf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolved]:
    """A real systemd-resolved in the client's network, to which its resolv.conf leads."""
    resolv_conf.write_text("nameserver 127.0.0.53\n")
    with running_resolved(client.directory / "resolved", monkeypatch) as running:
        yield running


@pytest.fixture
def resolvconf_of(client: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a package's resolvconf in force; the resolv.conf that it writes."""

    def put(package: str) -> Path:
        file = relocated_resolvconf(package, client.directory / package, monkeypatch)
        monkeypatch.setattr(resolvconf_program, "INTERFACE_ORDER", file.parent / "resolvconf/interface-order")
        return file

    return put


def _answers(resolved: Resolved) -> bool:
    try:
        return bool(resolved.ctl("status"))
    except subprocess.CalledProcessError:
        return False


def _wait_for(question: Callable[[], bool], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not question():
        assert time.monotonic() < deadline, f"not so after {within:.0f} s"
        time.sleep(0.02)
