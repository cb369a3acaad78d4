"""Where profiles are, and which one is meant."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from halftunnel_vpn.cli import files
from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.control.profile_store import PROFILES, ProfileStore
from halftunnel_vpn.errors import ConfigError, HostError


def find(name: str | None, directory: Path = PROFILES) -> Path:
    """The file of the profile ``name``: a name in ``directory``, or a file; for None the one that is meant.

    Raises ConfigError when there is none, or too many to choose from.
    """
    if name is None:
        known = _known(directory)
        chosen = ProfileStore(directory).chosen()
        if chosen is not None:
            return directory / f"{chosen}.toml"
        names = ", ".join(path.stem for path in known[:20])
        raise ConfigError(
            f"there are several profiles in {directory}: {names}; say which one"
            if known
            else f"there is no profile in {directory}; name a file, or put NAME.toml there"
        )
    if "/" not in name and (directory / f"{name}.toml").exists():
        return directory / f"{name}.toml"
    if Path(name).is_file() or "/" in name:
        return Path(name)
    raise ConfigError(
        f"there is no profile {name} in {directory}, and no file of that name; put {name}.toml there"
    )


def load(path: Path) -> ClientProfile:
    """Read a profile. Raises ConfigError; warns when others may read its private key."""
    profile = parse_client(files.read_text(path, missing=f"there is no file {path}"), source=str(path))
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        print(
            f"htvpn: others may read {path}, which holds a private key; chmod 600 mends that", file=sys.stderr
        )
    return profile


def _known(directory: Path) -> list[Path]:
    try:
        return sorted(directory.glob("*.toml"))
    except OSError as error:
        raise HostError(f"{directory} cannot be read: {error.strerror}; run this as root") from error
