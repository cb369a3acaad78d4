"""The profiles of this host, one TOML file each in a directory of root's, and the active one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.config.further_exit import with_further_exit
from halftunnel_vpn.config.schema import Rejected
from halftunnel_vpn.config.values import identifier
from halftunnel_vpn.control.text_file import read_text
from halftunnel_vpn.errors import ConfigError, HostError
from halftunnel_vpn.storage.atomic_file import replace_file

PROFILES = Path("/etc/halftunnel/profiles")
"""The default directory of profiles."""

MAX_PROFILES = 1000
"""The most profiles in one store."""

_SUFFIX = ".toml"
_CHOICE = ".default"
"""The file with the name of the profile that `htvpn profile use` has made the active one."""


class ProfileEntry(NamedTuple):
    """One profile of a store. ``problem`` is why it cannot be used, in one sentence; None if it can."""

    name: str
    chosen: bool
    problem: str | None


class ProfileStore:
    """The profiles in ``directory``. Every method raises ConfigError or HostError with one sentence."""

    def __init__(self, directory: Path = PROFILES) -> None:
        self.directory = directory

    def entries(self) -> list[ProfileEntry]:
        """Return all profiles by name. Each one is read and checked."""
        chosen = self.chosen()
        return [ProfileEntry(name, name == chosen, self._problem(name)) for name in self.names()]

    def names(self) -> list[str]:
        """Return the names of the profiles, sorted."""
        try:
            with os.scandir(self.directory) as files:
                found = sorted(
                    file.name.removesuffix(_SUFFIX)
                    for file in files
                    if file.name.endswith(_SUFFIX) and file.is_file()
                )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HostError(f"{self.directory} cannot be read: {error.strerror}; run this as root") from error
        return [name for name in found if _is_name(name)][:MAX_PROFILES]

    def chosen(self) -> str | None:
        """Return the active profile: the one chosen by `profile use`, or the only one; otherwise None."""
        names = self.names()
        try:
            name = (self.directory / _CHOICE).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            name = ""
        if name in names:
            return name
        return names[0] if len(names) == 1 else None

    def resolve(self, name: str | None) -> str:
        """Return the name of an existing profile: ``name``, or for None the active profile."""
        if name is not None:
            self._existing(name)
            return name
        chosen = self.chosen()
        if chosen is not None:
            return chosen
        names = self.names()
        if not names:
            raise ConfigError(
                f"there is no profile in {self.directory}; add one with 'htvpn profile add NAME FILE'"
            )
        raise ConfigError(
            f"there are several profiles ({', '.join(names[:20])}); name one, or choose one with "
            "'htvpn profile use NAME'"
        )

    def load(self, name: str) -> ClientProfile:
        """Read and check a profile."""
        path = self._existing(name)
        return parse_client(read_text(path), source=str(path))

    def put(self, name: str, text: str, *, replace: bool = True) -> None:
        """Check a profile and store it under ``name``, mode 0600.

        It replaces an existing one. With ``replace`` false, a different existing one is an error.
        """
        path = self._path(name)
        parse_client(text, source=name)
        is_there = _is_file(path)
        if is_there and not replace and read_text(path) != text:
            raise ConfigError(
                f"there is another profile {name} already; 'htvpn profile add --replace {name} FILE' "
                "replaces it"
            )
        if not is_there and len(self.names()) >= MAX_PROFILES:
            raise HostError(f"there are {MAX_PROFILES} profiles already; remove one first")
        self._write(path, text)

    def add_exit(self, name: str, other: str, *, exit: str | None = None, keep: bool = True) -> None:
        """Add the exit of the profile ``other`` to a profile, as ``exit`` if that is given.

        Without ``keep`` only check whether that is possible.
        """
        path = self._existing(name)
        changed = with_further_exit(read_text(path), other, source=str(path), name=exit)
        if keep:
            self._write(path, changed)

    def remove(self, name: str) -> None:
        """Remove a profile."""
        path = self._existing(name)
        try:
            path.unlink()
        except OSError as error:
            raise HostError(f"{path} cannot be removed: {error.strerror}") from error

    def use(self, name: str) -> None:
        """Make ``name`` the active profile."""
        self._existing(name)
        self._write(self.directory / _CHOICE, name + "\n")

    def _problem(self, name: str) -> str | None:
        try:
            self.load(name)
        except (ConfigError, HostError) as error:
            return str(error)
        return None

    def _path(self, name: str) -> Path:
        if not _is_name(name):
            raise ConfigError(
                f"{name[:80]!r} is not a valid profile name: letters, digits, dots, dashes and underscores, "
                "at most 64, beginning with a letter or digit"
            )
        return self.directory / f"{name}{_SUFFIX}"

    def _existing(self, name: str) -> Path:
        path = self._path(name)
        if not _is_file(path):
            raise ConfigError(
                f"there is no profile {name} in {self.directory}; 'htvpn profile list' shows which"
            )
        return path

    def _write(self, path: Path, text: str) -> None:
        """Write atomically, readable by root only. The file is on disk when this returns."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, text)
        except OSError as error:
            raise HostError(f"{path} cannot be written: {error.strerror}") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}; run this as root") from error


def _is_name(name: str) -> bool:
    try:
        identifier(name)
    except Rejected:
        return False
    return True
