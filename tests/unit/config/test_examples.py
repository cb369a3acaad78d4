"""The examples in configs/ are loaded, are complete, and show the real defaults."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tomli

from halftunnel_vpn.config.client import ClientProfile, parse_client
from halftunnel_vpn.config.server import ServerConfig, parse_server

CONFIGS = Path(__file__).parents[3] / "configs"


def keys(kind: type, path: str = "") -> set[str]:
    found = set()
    for field in dataclasses.fields(kind):
        if "section" in field.metadata:
            found |= keys(field.metadata["section"], f"{path}{field.name}.")
        elif "sections" in field.metadata:
            continue  # the test below
        else:
            found.add(path + field.name)
    return found


def mentioned(table: dict, path: str = "") -> set[str]:
    found = set()
    for key, value in table.items():
        found |= mentioned(value, f"{path}{key}.") if isinstance(value, dict) and value else {path + key}
    return found


@pytest.mark.parametrize(("name", "kind"), [("client.toml", ClientProfile), ("server.toml", ServerConfig)])
def test_an_example_mentions_every_key(name, kind):
    example = tomli.loads((CONFIGS / name).read_text(encoding="utf-8"))
    unexplained = {key for key in keys(kind) - mentioned(example) if ".tls." not in key}
    assert not unexplained


def test_the_further_exit_that_the_example_leaves_out_is_one_with_every_key_of_its_own():
    text = (CONFIGS / "client.toml").read_text(encoding="utf-8")
    before, mark, after = text.partition("# [[exits]]\n")
    sample, empty, rest = after.partition("\n\n")
    shown = "\n".join(line.removeprefix("# ") for line in sample.splitlines())
    profile = parse_client(f"{before}{mark.removeprefix('# ')}{shown}{empty}{rest}")
    assert [entry.name for entry in profile.exits] == ["example", "second"]
    first, second = profile.exits
    assert second.private_key != first.private_key
    assert mentioned(tomli.loads(shown)) == {
        *("name", "priority", "public_key", "private_key"),
        *("exits.upstream.urls", "exits.downstream.urls"),
    }


def test_the_client_example_shows_the_defaults(minimal_profile):
    example = parse_client((CONFIGS / "client.toml").read_text(encoding="utf-8"))
    minimal = parse_client(minimal_profile)
    for section in (
        "tls",
        "proxy",
        "proxy_server",
        "tun",
        "routes",
        "dns",
        "limits",
        "tcp",
        "failover",
        "control",
        "metrics",
        "log",
    ):
        assert getattr(example, section) == getattr(minimal, section), section


def test_the_server_example_shows_the_defaults(minimal_server):
    example = parse_server((CONFIGS / "server.toml").read_text(encoding="utf-8"))
    minimal = parse_server(minimal_server)
    for section in ("egress", "dns", "limits", "web", "metrics", "log"):
        assert getattr(example, section) == getattr(minimal, section), section
