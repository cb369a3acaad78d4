"""`htvpn install client|server` and `htvpn uninstall`: the units of a program in a virtual environment.

scripts/install makes such an environment in /opt/halftunnel, pipx makes one elsewhere. Debian packages have
units of their own, so there this refuses.
"""

from __future__ import annotations

import grp
import os
import shutil
import stat
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Final

from halftunnel_vpn.cli import daemon_commands, installation
from halftunnel_vpn.cli.daemon_process import SYSTEMD
from halftunnel_vpn.cli.installation import UNITS, Role
from halftunnel_vpn.config import DEFAULT_CONTROL_SOCKET
from halftunnel_vpn.control.peer import EXIT_GROUP, GROUP
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.external_program import ExternalProgram
from halftunnel_vpn.storage.atomic_file import remove_file, replace_file

UNIT_DIRECTORY: Final = Path("/etc/systemd/system")
EXIT_DIRECTORY: Final = Path("/var/lib/halftunnel-server")
STATE: Final = (Path("/run/halftunnel"), Path("/var/lib/halftunnel"))
CONFIGURATION: Final = (
    Path("/etc/halftunnel"),
    EXIT_DIRECTORY, Path("/var/lib/private/halftunnel-server"),
    Path("/var/lib/halftunnel-servers"), Path("/var/lib/private/halftunnel-servers"),
)  # fmt: skip
"""EXIT_DIRECTORY is a link of systemd's to the directory in private, once the exit has run.

halftunnel-servers has the directories of several exits, halftunnel-server@NAME.
"""

GROUPS: Final[dict[Role, str]] = {"client": GROUP, "server": EXIT_GROUP}
"""Members may use the control sockets of a role: of the client, they decide where the host's traffic goes."""

HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # refused  # nosec B108
"""Directories that the units do not see (ProtectHome=, PrivateTmp=)."""

TIMEOUT: Final = 90.0
"""Seconds that systemctl may take."""

_SYSTEMCTL: Final = ExternalProgram("systemctl", "this host does not run systemd", "see 'systemctl status'")
_GROUPADD: Final = ExternalProgram("groupadd", "install the package passwd", "see /etc/group")
_GROUPDEL: Final = ExternalProgram("groupdel", "install the package passwd", "see /etc/group")
_NFT: Final = ExternalProgram("nft", "install the package nftables", "see 'nft list ruleset'")

_FIND_SYSTEMD: Final = (
    "import os, sys, systemd.daemon, systemd.journal; "
    "print(sys.version_info[:2], os.path.dirname(systemd.__file__), sep='\\n')"
)


def install(options: Namespace) -> int:
    """Install the units of a role for the program in this environment; again after an update."""
    role: Role = options.role
    _require_systemd("install")
    if installation.is_packaged():
        raise HostError(f"this program came as a Debian package: run {installation.how_to_install(role)}")
    tree = installation.source_tree()
    if tree is not None:
        raise HostError(
            f"services do not run from a source tree: run {tree}/scripts/install {role}, or install a wheel"
        )
    prefix = Path(sys.prefix)
    _require_safe(prefix)
    if role == "client":
        _prepare_client(prefix)
    if not _group_exists(GROUPS[role]):
        _checked(_GROUPADD, "--system", GROUPS[role])
    for name in UNITS[role]:
        replace_file(UNIT_DIRECTORY / name, installation.unit_text(name, prefix), mode=0o644)
    _systemctl("daemon-reload")
    if role == "client":
        _systemctl("enable", "halftunnel-lockdown.service", "halftunnel.socket")
        # An update: the daemon that runs is the old one.
        _systemctl("try-restart", "halftunnel.service")
        _systemctl("start", "halftunnel.socket")
        print("installed. Next: htvpn join with an invitation, or htvpn profile add FILE; then htvpn up.")
        print("At every boot: systemctl enable halftunnel. Without sudo: usermod -aG halftunnel USER.")
        return 0
    _systemctl("try-restart", *installation.running_units(UNITS["server"]))
    print("installed. Next: htvpn server init --upstream URL --downstream URL,")
    print("then systemctl enable --now halftunnel-server, and htvpn server invite NAME.")
    return 0


def uninstall(options: Namespace) -> int:
    """Remove the units of both roles and what they left; the program itself stays."""
    _require_systemd("uninstall")
    if installation.is_packaged():
        raise HostError("this program came as Debian packages: run apt purge 'halftunnel-*'")
    present = [name for names in UNITS.values() for name in names if (UNIT_DIRECTORY / name).exists()]
    if present:
        # The socket goes with its service, or the next question would start the daemon again.
        _systemctl("disable", *present)
        _systemctl("stop", *installation.running_units(present))
    if UNITS["client"][0] in present:
        # What a killed daemon or a kill switch `always` has left in the kernel and in files.
        daemon_commands.repair(Namespace(socket=DEFAULT_CONTROL_SOCKET, lift=True))
    for name in present:
        remove_file(UNIT_DIRECTORY / name)
    for name in installation.running_units(present):
        _SYSTEMCTL.run(["reset-failed", name], timeout=TIMEOUT)
    _systemctl("daemon-reload")
    for group in filter(_group_exists, GROUPS.values()):
        _checked(_GROUPDEL, group)
    _return_systemd(Path(sys.prefix))
    for path in STATE if options.keep_configuration else (*STATE, *CONFIGURATION):
        _remove(path)
    print("the units, the group and the state are removed; the program is still there")
    return 0


# --- what must be true before ---------------------------------------------------------------------


def _require_systemd(verb: str) -> None:
    if os.geteuid() != 0:
        raise HostError(f"only root can {verb} units; run this as root, with sudo")
    if not SYSTEMD.is_dir():
        raise HostError("this host does not run systemd; 'htvpn up --foreground' needs none")


def _require_safe(prefix: Path) -> None:
    """Refuse an environment that the units cannot see, or that another user than root can change."""
    program = Path(sys.executable).resolve()
    for path in (prefix, program):
        hidden = next((top for top in HIDDEN if path.is_relative_to(top)), None)
        if hidden is not None:
            raise HostError(
                f"the units do not see {hidden}, where {path} is; install the program for all users, as "
                "with PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install halftunnel-vpn"
            )
    writable = next(filter(_others_can_write, [*prefix.parents, program, *_tree(prefix)]), None)
    if writable is not None:
        raise HostError(
            f"another user than root can change {writable}, which a service of root would run; "
            "install the program as root"
        )


def _tree(top: Path) -> list[Path]:
    """Return every file and directory of an environment, and the directory itself."""
    found = [top]
    for directory, names, files in os.walk(top):
        found += [Path(directory, name) for name in (*names, *files)]
    return found


def _others_can_write(path: Path) -> bool:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return found.st_uid != 0
    return found.st_uid != 0 or bool(found.st_mode & stat.S_IWOTH)


# --- the client -----------------------------------------------------------------------------------


def _prepare_client(prefix: Path) -> None:
    if _NFT.find() is None:
        raise HostError("nft is not installed, and the client needs it: apt install nftables")
    _lend_systemd(prefix)
    Path("/etc/halftunnel").mkdir(mode=0o755, exist_ok=True)
    Path("/etc/halftunnel/profiles").mkdir(mode=0o700, exist_ok=True)


def _lend_systemd(prefix: Path) -> None:
    """Link the distribution's systemd-python into the environment; building it would need a compiler."""
    if _systemd_found():
        return
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    link = site / "systemd"
    answer = subprocess.run(
        ["/usr/bin/python3", "-c", _FIND_SYSTEMD],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    version, _, directory = answer.stdout.strip().partition("\n")
    if answer.returncode == 0 and version == str(sys.version_info[:2]):
        link.unlink(missing_ok=True)
        link.symlink_to(directory)
        return
    print(
        "htvpn: without python3-systemd for this Python, the journal gets plain lines: apt install "
        "python3-systemd, then run this again",
        file=sys.stderr,
    )


def _systemd_found() -> bool:
    """Return whether this program could import it, seen by a process that has imported nothing yet."""
    asked = [sys.executable, "-c", "import systemd.daemon, systemd.journal"]
    return subprocess.run(asked, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0


def _return_systemd(prefix: Path) -> None:
    for path in sys.path:
        link = Path(path, "systemd")
        if link.is_relative_to(prefix) and link.is_symlink():
            link.unlink()


# --- details --------------------------------------------------------------------------------------


def _group_exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def _systemctl(*words: str) -> None:
    _checked(_SYSTEMCTL, "--quiet", *words)


def _checked(program: ExternalProgram, *words: str) -> None:
    done = program.run(words, timeout=TIMEOUT)
    if done.returncode:
        said = done.stderr.strip().replace("\n", "; ")
        raise HostError(f"`{program.name} {' '.join(words)}` failed: {said}")


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
