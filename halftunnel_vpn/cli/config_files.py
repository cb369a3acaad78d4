"""`htvpn config example` and `htvpn config schema`: what a configuration file may say."""

from __future__ import annotations

import json
from argparse import Namespace

from halftunnel_vpn.cli import installation
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.json_schema import json_schema
from halftunnel_vpn.config.server import ServerConfig

KINDS = {
    "client": (ClientProfile, "A profile of Half-Tunnel"),
    "server": (ServerConfig, "The configuration of a Half-Tunnel exit"),
}


def example(options: Namespace) -> int:
    """Print the example that explains every key."""
    print(installation.example(options.role).read_text(encoding="utf-8"), end="")
    return 0


def schema(options: Namespace) -> int:
    """Print the JSON Schema, for editors that check TOML files by one."""
    kind, title = KINDS[options.role]
    text = installation.example(options.role).read_text(encoding="utf-8")
    print(json.dumps(json_schema(kind, text, title=title), indent=2))
    return 0
