"""Several exits with one list of clients: which of them a client uses."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from halftunnel_vpn.cli import server_directory
from halftunnel_vpn.config import DEFAULT_EXIT_DIRECTORY
from halftunnel_vpn.control.owned_directory import OwnedDirectory
from halftunnel_vpn.errors import UsageError
from halftunnel_vpn.protocol.keys import parse_key_pair


def directories_of(options: Namespace) -> list[Path]:
    """Return the directories of all exits that the command line names. Raises UsageError."""
    directories = [Path(one) for one in options.dir or [DEFAULT_EXIT_DIRECTORY]]
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise UsageError("--dir names one exit twice; name each exit once")
    return directories


def open_for(name: str, options: Namespace, opened: ExitStack) -> list[OwnedDirectory]:
    """Open the directories of all exits, that of the exit of client ``name`` first. ``opened`` closes them.

    Raises ConfigError, HostError or UsageError.
    """
    directories = {
        path: opened.enter_context(server_directory.open_directory(path)) for path in directories_of(options)
    }
    if len(directories) == 1:
        return list(directories.values())
    keys = {path: _public_key(directory) for path, directory in directories.items()}
    return [directories[path] for path in by_preference(name, keys)]


def _public_key(directory: OwnedDirectory) -> bytes:
    file = server_directory.read_configuration(directory).server.private_key
    missing = f"there is no {directory.path / file}, which [server] private_key names; put it back"
    return parse_key_pair(directory.read_text(file, missing=missing), file).public


def by_preference(name: str, keys: Mapping[Path, bytes]) -> list[Path]:
    """Return the directories of ``keys`` (public keys of exits), that of the exit of client ``name`` first.

    Each exit gets about the same number of clients. The order of the directories does not matter, and a
    further exit takes over only those clients that become its own (rendezvous hashing).
    """

    def weight(directory: Path) -> bytes:
        return hashlib.sha256(keys[directory] + name.encode()).digest()

    return sorted(keys, key=weight)
