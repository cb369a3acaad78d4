"""How this program was installed: where its files are, and what a message may advise.

There are three ways: packages of Debian, a virtual environment (pipx, or scripts/install) and a source tree.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import halftunnel_vpn

Role = Literal["client", "server"]

PACKAGED = Path("/usr/lib/halftunnel")
"""The program's directory when Debian packages installed it (scripts/package)."""

UNIT_PREFIX = "/opt/halftunnel"
"""The program's directory as the units in ``share/systemd`` have it."""

SHARE = Path(halftunnel_vpn.__file__).parent / "share"
"""Units, examples and completion scripts; links in a source tree, files everywhere else."""

UNITS: dict[Role, tuple[str, ...]] = {
    "client": ("halftunnel.service", "halftunnel.socket", "halftunnel-lockdown.service"),
    "server": ("halftunnel-server.service", "halftunnel-server@.service"),
}
"""The units of each role."""


def is_packaged() -> bool:
    """Return whether Debian packages installed this program."""
    return Path(sys.prefix) == PACKAGED


def source_tree() -> Path | None:
    """Return the top of the source tree that this program runs from, if it does."""
    top = Path(halftunnel_vpn.__file__).parents[1]
    return top if (top / "scripts" / "install").is_file() else None


def how_to_install(role: Role) -> str:
    """Return the command that installs the units of ``role``; it needs root."""
    tree = source_tree()
    if is_packaged():
        return f"apt install halftunnel-{role}"
    if tree is not None:
        return f"{tree}/scripts/install {role}"
    return f"{sys.prefix}/bin/htvpn install {role}"


def example(role: Role) -> Path:
    """Return the example of the configuration of ``role``, which explains every key."""
    return (SHARE / "configs" / f"{role}.toml").resolve()


def running_units(names: Iterable[str]) -> list[str]:
    """Return patterns of the units that run from the files ``names``. A template runs as its instances."""
    return [name.replace("@.", "@*.") for name in names]


def unit_text(name: str, prefix: Path) -> str:
    """Return the unit ``name`` for a program in the directory ``prefix``."""
    return (SHARE / "systemd" / name).read_text(encoding="utf-8").replace(UNIT_PREFIX, str(prefix))
