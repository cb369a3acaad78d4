"""`htvpn config example|schema|check`: what a configuration file may say, and what is wrong with one."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from pathlib import Path

from halftunnel_vpn.cli import installation
from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.config.json_schema import json_schema
from halftunnel_vpn.config.schema import MAX_TEXT
from halftunnel_vpn.config.server import ServerConfig, parse_server
from halftunnel_vpn.control import text_file

KINDS = {
    "client": (ClientProfile, "A profile of Half-Tunnel"),
    "server": (ServerConfig, "The configuration of a Half-Tunnel exit"),
}


def example(options: Namespace) -> int:
    """Print the example that explains every key."""
    print(installation.example(options.role).read_text(encoding="utf-8"), end="")
    return 0


def check(options: Namespace) -> int:
    """Read a configuration as the program does. Raises ConfigError with every mistake."""
    text = _text(options.file)
    role = options.role or _role(text)
    if role == "server":
        parse_server(text, source=options.file)
        print(f"{options.file} is a valid configuration of an exit; 'htvpn server check' reads its files")
        return 0
    profile = parse_client(text, source=options.file)
    print(f"{options.file} is a valid profile, {profile.name}")
    if options.file != "-" and Path(options.file).stat().st_mode & 0o077:
        print(
            f"htvpn: other users can read {options.file}, which holds a private key; run chmod 600 on it",
            file=sys.stderr,
        )
    return 0


def _role(text: str) -> str:
    """Return what the tables of a file are for: only an exit listens. A file without any is a profile."""
    return (
        "server" if re.search(r"^\s*\[\s*(server|listen|public|egress)\b", text, re.MULTILINE) else "client"
    )


def _text(file: str) -> str:
    if file == "-":
        return text_file.decode(sys.stdin.buffer.read(MAX_TEXT + 1), "standard input")
    return text_file.read_text(Path(file), missing=f"there is no file {file}")


def schema(options: Namespace) -> int:
    """Print the JSON Schema, for editors that check TOML files by one."""
    kind, title = KINDS[options.role]
    text = installation.example(options.role).read_text(encoding="utf-8")
    print(json.dumps(json_schema(kind, text, title=title), indent=2))
    return 0
