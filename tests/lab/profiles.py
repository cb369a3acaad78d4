"""Profiles for tests that read one and connect to nobody."""

from __future__ import annotations

import base64
from typing import Final

LEAST: Final = f"""\
name = "home"
[exit]
public_key = "{base64.b64encode(bytes(range(32))).decode()}"
[client]
private_key = "{base64.b64encode(bytes(range(100, 132))).decode()}"
[upstream]
urls = ["wss://a.example.org/up"]
[downstream]
urls = ["wss://b.example.net/down", "wss://c.example.com/down"]
"""
"""What a profile must say, and two URLs downstream."""
