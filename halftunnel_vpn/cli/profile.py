"""`htvpn profile list|add|remove|use`: root changes the files itself, other users through the daemon."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from urllib.parse import quote, urlencode

from halftunnel_vpn.cli import daemon_process
from halftunnel_vpn.config.schema import MAX_TEXT
from halftunnel_vpn.control import text_file
from halftunnel_vpn.control.profile_store import PROFILES, ProfileEntry, ProfileStore


def show(options: Namespace) -> int:
    """Print one line per profile. ``*`` marks the active one."""
    entries = kept_profiles(options).entries()
    for entry in entries:
        problem = f": {entry.problem.splitlines()[0]}" if entry.problem else ""
        print(f"{'*' if entry.chosen else ' '} {entry.name}{problem}")
    if not entries:
        print("htvpn: there is no profile; add one with 'htvpn profile add NAME FILE'", file=sys.stderr)
    return 0


def add(options: Namespace) -> int:
    """Check a profile and store it."""
    text = _text(options.file)
    name = options.name
    if name is None:
        from halftunnel_vpn.config.client import parse_client

        name = parse_client(text, source=options.file).name
    kept_profiles(options).put(name, text, replace=options.replace)
    print(f"profile {name} is stored")
    return 0


def add_exit(options: Namespace) -> int:
    """Add the exit of another profile to a profile."""
    kept_profiles(options).add_exit(options.name, _text(options.file), exit=options.exit)
    print(f"profile {options.name} has a further exit; 'htvpn exits {options.name}' measures all of them")
    return 0


def remove(options: Namespace) -> int:
    """Remove a profile and its key."""
    kept_profiles(options).remove(options.name)
    print(f"profile {options.name} is removed")
    return 0


def use(options: Namespace) -> int:
    """Make a profile the active one."""
    kept_profiles(options).use(options.name)
    print(f"profile {options.name} is the active one now; 'htvpn up' connects through it")
    return 0


class DaemonProfiles:
    """The daemon's profiles, changed by the daemon. Every method raises HostError with its sentence."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def entries(self) -> list[ProfileEntry]:
        """Return all profiles by name."""
        told = daemon_process.command(self._socket, "GET", "/v1/profiles")["profiles"]
        return [ProfileEntry(entry["name"], entry["chosen"], entry["problem"]) for entry in told]

    def put(self, name: str, text: str, *, replace: bool) -> None:
        """Store a profile."""
        query = "" if replace else "?replace=no"
        daemon_process.command(self._socket, "PUT", f"{_place(name)}{query}", text.encode())

    def add_exit(self, name: str, other: str, *, exit: str | None, keep: bool = True) -> None:
        """Add the exit of the profile ``other``; without ``keep`` only see whether that is possible."""
        query = {key: value for key, value in (("exit", exit), ("keep", None if keep else "no")) if value}
        place = f"{_place(name)}/exits?{urlencode(query)}"
        daemon_process.command(self._socket, "POST", place, other.encode())

    def remove(self, name: str) -> None:
        """Remove a profile."""
        daemon_process.command(self._socket, "DELETE", _place(name))

    def use(self, name: str) -> None:
        """Make a profile the active one."""
        daemon_process.command(self._socket, "POST", f"{_place(name)}/use")


def kept_profiles(options: Namespace) -> ProfileStore | DaemonProfiles:
    """Return the files themselves for root or a given directory, otherwise the daemon's profiles."""
    if options.dir is None and os.geteuid() != 0:
        return DaemonProfiles(options.socket)
    return ProfileStore(Path(options.dir) if options.dir is not None else PROFILES)


def _text(file: str) -> str:
    if file == "-":
        return text_file.decode(sys.stdin.buffer.read(MAX_TEXT + 1), "standard input")
    return text_file.read_text(Path(file))


def _place(name: str) -> str:
    # The argument may not be valid text. The daemon refuses what remains of it.
    return f"/v1/profiles/{quote(name, safe='', errors='replace')}"
