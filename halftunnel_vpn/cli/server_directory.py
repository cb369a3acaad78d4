"""The exit's directory: the names of its files, and how to read them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

from halftunnel_vpn.cli import environment
from halftunnel_vpn.config.server import ServerConfig, parse_server
from halftunnel_vpn.control.owned_directory import OwnedDirectory
from halftunnel_vpn.control.text_file import read_text

CONFIGURATION = "server.toml"
PRIVATE_KEY = "exit.key"
CLIENT_SUFFIX = ".toml"


def load(directory: Path) -> ServerConfig:
    """Return the configuration of an exit that is about to start. Raises ConfigError."""
    path = directory / CONFIGURATION
    return _parse(path, lambda: read_text(path, missing=_missing(directory), opener=os.open))


def open_directory(path: Path) -> OwnedDirectory:
    """Open the directory of an exit to change it. Raises ConfigError if there is none."""
    return OwnedDirectory.open(path, missing=_missing(path))


def read_configuration(directory: OwnedDirectory) -> ServerConfig:
    """Return the configuration in ``directory``. Raises ConfigError."""
    path = directory.path / CONFIGURATION
    return _parse(path, lambda: directory.read_text(CONFIGURATION, missing=_missing(directory.path)))


def _parse(path: Path, read: Callable[[], str]) -> ServerConfig:
    """Parse the environment's configuration, or else what ``read`` returns of the file at ``path``."""
    settings = environment.read(environment.SERVER_CONFIG)
    if settings.text is not None:
        return parse_server(settings.text, source=settings.source, variables=settings.variables)
    return parse_server(read(), source=str(path), variables=settings.variables)


def _missing(directory: Path) -> str:
    init = f"htvpn server init --dir {shlex.quote(str(directory))} ..."
    return f"there is no {directory / CONFIGURATION}; make one with `{init}`"
