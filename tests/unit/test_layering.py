"""The floors of the package: who may import whom, which are pure, and who owns which third-party package.

`violations` reads every file with `ast`, nothing is imported. It is itself proven on wrong trees.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "halftunnel_vpn"
ROOT = Path(__file__).parents[2] / PACKAGE

FLOORS = {
    "": 0, "errors": 0, "counters": 0, "timers": 0, "icmp_error": 0,
    "config": 1, "protocol": 1, "inet": 1,
    "session": 2, "flow": 2, "storage": 2,
    "transport": 3, "tun": 3, "dns": 3, "host": 3, "control": 3, "observe": 3,
    "client": 4, "server": 4,
    "daemon": 5, "cli": 5,
}  # fmt: skip
"""Rooms of the package; "" is its own __init__."""

PURE = {"", "errors", "counters", "timers", "icmp_error", "config", "protocol", "inet", "session", "flow"}
IMPURE_MODULES = {"asyncio", "socket", "os", "time", "random", "secrets", "threading"}

OWNERS = {
    "websockets": "transport",
    "uvloop": "transport",
    "pyroute2": "host",
    "jeepney": "host",
    "dnslib": "dns",
    "cryptography": "protocol",
    "tomli": "config",
    "h11": "control",
    "prometheus_client": "observe",
    "systemd": "daemon",
}
"""Third-party packages, each with the one room that imports it."""


def violations(root: Path) -> list[str]:
    """Every broken rule below the package directory ``root``: ``FILE:LINE: what is wrong``."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        room = "" if parts == ("__init__",) else parts[0]
        where = "/".join((PACKAGE, *path.relative_to(root).parts))
        if room not in FLOORS:
            found.append(f"{where}:1: {room} is on no floor; add it to FLOORS")
            continue
        package = (PACKAGE, *parts[:-1])
        for line, target in imports(ast.parse(path.read_text(encoding="utf-8")), package):
            problem = judge(room, target)
            if problem:
                found.append(f"{where}:{line}: {problem}")
    return found


def imports(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted name of every import of a file in ``package``, wherever in the file it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                # `from package import room` names the room only here.
                yield node.lineno, (*base, alias.name) if base == (PACKAGE,) else base


def judge(room: str, target: tuple[str, ...]) -> str | None:
    """What is wrong with ``room`` importing ``target``; None if nothing is."""
    top = target[0]
    if top == PACKAGE:
        other = target[1] if len(target) > 1 and target[1] in FLOORS else ""
        if len(target) > 1 and target[1] not in FLOORS and not target[1].startswith("__"):
            return f"{'.'.join(target)} is in no room of this package"
        if other == room or FLOORS[other] < FLOORS[room]:
            return None
        relation = "on the same floor" if FLOORS[other] == FLOORS[room] else "on a higher floor"
        return (
            f"{room or PACKAGE} (floor {FLOORS[room]}) imports {other}, which is {relation} ({FLOORS[other]})"
        )
    if top in OWNERS:
        return None if OWNERS[top] == room else f"{room} imports {top}, which {OWNERS[top]} alone may"
    if top not in sys.stdlib_module_names:
        return f"{room} imports {top}, a third-party package without an owner"
    if room in PURE and top in IMPURE_MODULES:
        return f"{room} is pure and imports {top}"
    return None


def test_the_package_keeps_its_floors():
    assert not violations(ROOT), "\n" + "\n".join(violations(ROOT))


TYPE_CHECKING_ONLY = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {PACKAGE}.client"


@pytest.mark.parametrize(
    ("path", "source", "line", "problem"),
    [
        ("session/mux.py", "import asyncio", 1, "session is pure and imports asyncio"),
        ("inet/ip.py", "def f():\n    from time import time", 2, "inet is pure and imports time"),
        ("protocol/wire.py", "import os.path", 1, "protocol is pure and imports os"),
        ("errors.py", "import socket", 1, "errors is pure and imports socket"),
        ("config/a.py", f"from {PACKAGE}.protocol.keys import x", 1,
         "config (floor 1) imports protocol, which is on the same floor (1)"),
        ("flow/a.py", f"from {PACKAGE} import transport", 1,
         "flow (floor 2) imports transport, which is on a higher floor (3)"),
        ("client/a.py", f"import {PACKAGE}.server.main as m", 1,
         "client (floor 4) imports server, which is on the same floor (4)"),
        ("client/a.py", "from ..server import main", 1,
         "client (floor 4) imports server, which is on the same floor (4)"),
        ("client/a.py", "from .. import cli", 1,
         "client (floor 4) imports cli, which is on a higher floor (5)"),
        ("tun/a.py", TYPE_CHECKING_ONLY, 3, "tun (floor 3) imports client, which is on a higher floor (4)"),
        ("server/a.py", "import websockets.server", 1,
         "server imports websockets, which transport alone may"),
        ("dns/a.py", "import requests", 1, "dns imports requests, a third-party package without an owner"),
        ("tun/a.py", "from scapy.all import IP", 1,
         "tun imports scapy, a third-party package without an owner"),
        ("cli/a.py", "from lab.topology import Lab", 1,
         "cli imports lab, a third-party package without an owner"),
        ("utils/a.py", "", 1, "utils is on no floor; add it to FLOORS"),
        ("cli/a.py", f"from {PACKAGE}.helpers import x", 1,
         f"{PACKAGE}.helpers is in no room of this package"),
    ],
)  # fmt: skip
def test_a_wrong_import_is_found_and_its_file_is_named(tmp_path, path, source, line, problem):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(source)
    assert violations(tmp_path) == [f"{PACKAGE}/{path}:{line}: {problem}"]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "session/a.py",
            f"import struct\nfrom {PACKAGE}.protocol.wire import X\nfrom {PACKAGE}.session.b import Y",
        ),
        ("session/a.py", f"from . import b\nfrom {PACKAGE} import errors, __version__"),
        ("transport/a.py", "import asyncio, socket, websockets.client, uvloop"),
        ("cli/a.py", f"import os\nfrom {PACKAGE}.client import main"),
    ],
)
def test_right_imports_are_no_violations(tmp_path, path, source):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(source)
    assert violations(tmp_path) == []
