"""A profile that says only what must be said."""

from __future__ import annotations

import base64

import pytest

EXIT_KEY = bytes(range(32))
CLIENT_KEY = bytes(range(100, 132))


@pytest.fixture
def minimal_profile() -> str:
    return f"""\
name = "home"
[exit]
public_key = "{base64.b64encode(EXIT_KEY).decode()}"
[client]
private_key = "{base64.b64encode(CLIENT_KEY).decode()}"
[upstream]
urls = ["wss://a.example.org/up"]
[downstream]
urls = ["wss://b.example.net:8443/down", "ws://[2001:db8::1]/down"]
"""


@pytest.fixture
def minimal_server() -> str:
    return """\
[server]
private_key = "exit.key"
[listen.upstream]
address = "::"
port = 443
path = "/up"
certificate = "up.pem"
certificate_key = "up.key"
[listen.downstream]
address = "192.0.2.1"
port = 8443
path = "/down"
tls = false
[public.upstream]
urls = ["wss://a.example.org/up"]
[public.downstream]
urls = ["wss://b.example.net/down"]
"""
