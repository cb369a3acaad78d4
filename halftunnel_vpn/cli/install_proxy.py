"""`htvpn install proxy`: the systemd unit of a user's own proxy. It needs no root."""

from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from halftunnel_vpn.cli import installation, profiles
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.storage.atomic_file import remove_file, replace_file

UNIT: Final = "halftunnel-proxy.service"


def install(options: Namespace) -> int:
    """Write the unit of this user for the program that runs now."""
    if os.geteuid() == 0:
        raise HostError("a proxy belongs to a user: run this as that user, without sudo")
    directory = unit_directory()
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(directory / UNIT, unit_text(), mode=0o644)
    except OSError as error:
        raise HostError(f"{directory / UNIT} cannot be written: {error.strerror}") from error
    print(f"installed. Next: put the profile into {profiles.user_directory()}, then")
    print(f"systemctl --user daemon-reload && systemctl --user enable --now {UNIT}.")
    print("To run it without a login: loginctl enable-linger.")
    return 0


def is_meant() -> bool:
    """Whether this user, who is not root, has such a unit: then `htvpn uninstall` removes it."""
    return os.geteuid() != 0 and bool(os.environ.get("HOME")) and (unit_directory() / UNIT).exists()


def uninstall() -> int:
    """Remove the unit of this user."""
    remove_file(unit_directory() / UNIT)
    print(f"removed; 'systemctl --user disable --now {UNIT}' ends a proxy that runs")
    return 0


def unit_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the units of this user are (systemd.unit(5))."""
    home = environ.get("HOME")
    if not home:
        raise HostError("this user has no home directory, so there is no place for the unit")
    return Path(environ.get("XDG_CONFIG_HOME") or f"{home}/.config") / "systemd" / "user"


def unit_text() -> str:
    """Return the unit, which starts the program that runs now."""
    program = Path(sys.argv[0]).resolve()
    if program.name != "htvpn":  # it was started as `python -m halftunnel_vpn.cli`
        found = shutil.which("htvpn")
        command = found or f"{sys.executable} -m halftunnel_vpn.cli"
    else:
        command = str(program)
    text = (installation.SHARE / "systemd" / "user" / UNIT).read_text(encoding="utf-8")
    return text.replace(f"{installation.UNIT_PREFIX}/bin/htvpn", command)
