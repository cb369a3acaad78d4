"""Find and load profiles."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from halftunnel_vpn.cli import environment
from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.control.profile_store import PROFILES, ProfileStore
from halftunnel_vpn.control.text_file import read_text
from halftunnel_vpn.errors import ConfigError, HostError


def find(name: str | None, directory: Path = PROFILES) -> Path:
    """Return the file of the profile ``name``: a name in ``directory``, or a file; None means the active one.

    Raises ConfigError when there is none or no unique one, HostError when the directory cannot be read.
    """
    store = ProfileStore(directory)
    if name is None:
        chosen = store.chosen()
        if chosen is not None:
            return directory / f"{chosen}.toml"
        names = store.names()
        raise ConfigError(
            f"there are several profiles in {directory}: {', '.join(names[:20])}; name one"
            if names
            else f"there is no profile in {directory}; name a file, or put NAME.toml there"
        )
    if "/" not in name and name in store.names():
        return directory / f"{name}.toml"
    if Path(name).is_file() or "/" in name:
        return Path(name)
    raise ConfigError(
        f"there is no profile {name} in {directory}, and no file of that name; put {name}.toml there"
    )


def reader(name: str | None) -> Callable[[], ClientProfile]:
    """Return what reads the profile ``name``, again at each call, with the environment's settings.

    For None it is the profile in the environment, or the active one. Raises as :func:`find` does.
    """
    settings = environment.read(environment.PROFILE)
    if name is None and settings.text is not None:
        return _from_environment
    try:
        path = find(name)
    except ConfigError:
        if name is None and settings.variables and not ProfileStore(PROFILES).names():
            return _from_environment
        raise
    return lambda: load(path)


def user_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where a user's own profiles are: they need no root."""
    base = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME') or '/nonexistent'}/.config"
    return Path(base) / "halftunnel"


def user_reader(name: str | None) -> Callable[[], ClientProfile]:
    """As :func:`reader`, with the user's own directory before that of root, which need not be readable.

    Raises ConfigError.
    """
    own = user_directory()
    try:
        names = ProfileStore(own).names()
    except HostError:
        names = []
    in_environment = environment.read(environment.PROFILE).text is not None
    if name in names or (name is None and names and not in_environment):
        path = find(name, own)
        return lambda: load(path)
    try:
        return reader(name)
    except HostError:  # /etc/halftunnel/profiles is for root alone
        where = f"{own}"
    except ConfigError:
        if names or ProfileStore(PROFILES).names():
            raise
        where = f"{own} or {PROFILES}"
    what = "no profile" if name is None else f"no profile {name}"
    raise ConfigError(f"there is {what} in {where}; put NAME.toml there, or name a file") from None


def _from_environment() -> ClientProfile:
    """Read a profile that has no file of its own: a whole one, or a variable for each key."""
    settings = environment.read(environment.PROFILE)
    if settings.text is not None:
        return parse_client(settings.text, source=settings.source, variables=settings.variables)
    return parse_client(
        "", source="the environment", variables={"HTVPN_NAME": "environment", **settings.variables}
    )


def load(path: Path) -> ClientProfile:
    """Read a profile with the environment's settings; warn if other users may read its private key.

    Raises ConfigError.
    """
    text = read_text(path, missing=f"there is no file {path}")
    variables = environment.read(environment.PROFILE).variables
    profile = parse_client(text, source=str(path), variables=variables)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        print(
            f"htvpn: other users can read {path}, which holds a private key; run chmod 600 on it",
            file=sys.stderr,
        )
    return profile
