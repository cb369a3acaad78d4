"""The exit's directory: the names of its files, and how they are read."""

from __future__ import annotations

from pathlib import Path

from halftunnel_vpn.config.server import ServerConfig, parse_server
from halftunnel_vpn.control.text_file import read_text

CONFIGURATION = "server.toml"
PRIVATE_KEY = "exit.key"
CLIENTS = "clients"


def load(directory: Path) -> ServerConfig:
    """The exit's configuration. Raises ConfigError."""
    path = directory / CONFIGURATION
    missing = f"there is no {path}; make one with 'htvpn server init --dir {directory} ...'"
    return parse_server(read_text(path, missing=missing), source=str(path))


def client_file(directory: Path, name: str) -> Path:
    """Where the client ``name`` is kept."""
    return directory / CLIENTS / f"{name}.toml"
