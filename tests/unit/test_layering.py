"""The floors of the package: who may import whom, which are pure, and who owns which third-party package.

`violations` reads every file with `ast`, nothing is imported. No module may import itself through others,
inside one room neither, and not for type annotations. It is itself proven on wrong trees.
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
    "session": 2, "flow": 2, "audit": 2, "storage": 2, "http1": 2,
    "transport": 3, "tun": 3, "dns": 3, "host": 3, "control": 3, "observe": 3,
    "client": 4, "server": 4, "proxy": 4,
    "daemon": 5, "cli": 5,
}  # fmt: skip
"""Rooms of the package; "" is its own __init__."""

PURE = {
    "",
    "errors",
    "counters",
    "timers",
    "icmp_error",
    "config",
    "protocol",
    "inet",
    "session",
    "flow",
    "audit",
}
IMPURE_MODULES = {"asyncio", "socket", "os", "time", "random", "secrets", "threading"}

OWNERS = {
    "websockets": "transport",
    "uvloop": "transport",
    "pyroute2": "host",
    "jeepney": "host",
    "dnslib": "dns",
    "cryptography": "protocol",
    "tomli": "config",
    "h11": "http1",
    "segno": "control",
    "prometheus_client": "observe",
    "opentelemetry": "observe",
    "requests": "observe",
    "matplotlib": "audit",
    "systemd": "daemon",
    "textual": "cli",
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
    return found + [f"{' -> '.join(circle)}: these modules import each other" for circle in circles(root)]


def circles(root: Path) -> list[list[str]]:
    """Each circle of imports below the package directory ``root``: its modules in order, the first one twice.

    Of several circles that share a module, at least one is found.
    """
    graph = module_graph(root)
    found: list[list[str]] = []
    done = set[str]()
    for start in graph:
        # Depth first: the modules on the way to the current one, each with what it imports yet to be seen.
        way = {start: iter(graph[start])} if start not in done else {}
        while way:
            module = next(reversed(way))
            target = next(way[module], None)
            if target is None:
                done.add(module)
                del way[module]
            elif target in way:
                names = list(way)
                found.append([*names[names.index(target) :], target])
            elif target not in done:
                way[target] = iter(graph[target])
    return found


def module_graph(root: Path) -> dict[str, list[str]]:
    """The modules of the package that each module imports, by dotted names below the package."""
    files = {module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    graph = {}
    for module, path in files.items():
        is_package = path.name == "__init__.py"
        package = (PACKAGE, *module.split(".")) if is_package else (PACKAGE, *module.split(".")[:-1])
        targets = set[str]()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for names in imported_names(node, package):
                targets.update([name for name in names if name in files and name != module][:1])
        graph[module] = sorted(targets)
    return graph


def module_name(path: Path, root: Path) -> str:
    """The dotted name of the module in the file ``path``, below the package; "" for the package itself."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(node: ast.AST, package: tuple[str, ...]) -> Iterator[list[str]]:
    """For each import in ``node``: the names below the package that its module may have, likeliest first."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top, _, name = alias.name.partition(".")
            yield [name] if top == PACKAGE else []
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        base += tuple(node.module.split(".")) if node.module else ()
        for alias in node.names:
            # `from room import module`, or `from module import anything`
            yield [".".join((*base[1:], alias.name)), ".".join(base[1:])] if base[:1] == (PACKAGE,) else []


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
        ("dns/a.py", "import httpx", 1, "dns imports httpx, a third-party package without an owner"),
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


def write(root: Path, files: dict[str, str]) -> None:
    """Write ``files``, texts by path, below ``root``."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        (
            {
                "session/a.py": f"from {PACKAGE}.session.b import B",
                "session/b.py": f"import {PACKAGE}.session.a",
            },
            "session.a -> session.b -> session.a",
        ),
        (
            {
                "session/a.py": "from . import b",
                "session/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import A",
            },
            "session.a -> session.b -> session.a",
        ),
        (
            {
                "server/d/a.py": f"from {PACKAGE}.server.b import B",
                "server/b.py": f"def late():\n    from {PACKAGE}.server import c",
                "server/c.py": f"from {PACKAGE}.server.d import a\nfrom {PACKAGE}.errors import E",
                "errors.py": "",
            },
            "server.b -> server.c -> server.d.a -> server.b",
        ),
        (
            {
                "tun/__init__.py": f"from {PACKAGE}.tun.device import Device",
                "tun/device.py": f"from {PACKAGE}.tun import Device",
            },
            "tun -> tun.device -> tun",
        ),
    ],
)
def test_a_circle_of_imports_is_found_and_its_modules_are_named(
    tmp_path: Path, files: dict[str, str], circle: str
) -> None:
    write(tmp_path, files)
    assert violations(tmp_path) == [f"{circle}: these modules import each other"]


def test_modules_that_share_others_are_no_circle(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "server/__init__.py": f"from {PACKAGE}.server.a import A",
            "server/a.py": "from . import b, c",
            "server/b.py": "from . import c",
            "server/c.py": "",
        },
    )
    assert violations(tmp_path) == []


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


# --- names ------------------------------------------------------------------------------------------

MAY_REPEAT = {
    "__init__": "Python's",
    "__main__": "Python's",
    "main": "the entry of a program",
    "interfaces": "the structural types that a floor offers",
}
"""File names that several folders may have, and why."""


def repeated_names(root: Path) -> dict[str, list[str]]:
    """Names of files and classes that occur more than once below ``root``, with the places."""
    places: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root).as_posix()
        if path.stem not in MAY_REPEAT:
            places.setdefault(path.name, []).append(where)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{where}:{node.lineno}")
    return {name: found for name, found in places.items() if len(found) > 1}


def test_a_name_means_one_thing_in_the_package() -> None:
    assert repeated_names(ROOT) == {}


def test_a_name_that_occurs_twice_is_found(tmp_path: Path) -> None:
    for folder, source in (("a", "class Leg: ...\n"), ("b", "def f():\n    class Leg: ...\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "main.py").write_text(source)
        (tmp_path / folder / "state.py").write_text("")
    assert repeated_names(tmp_path) == {
        "Leg": ["a/main.py:1", "b/main.py:2"],
        "state.py": ["a/state.py", "b/state.py"],
    }


# --- sizes ------------------------------------------------------------------------------------------

MAX_LINES = 350
"""Lines of a file; one that grows beyond is split by role."""


def test_no_file_is_too_long_to_read() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


MAX_FUNCTION = 80
"""Lines of a function; the longest ones only wire parts together, or add options to a parser."""


def test_no_function_is_too_long_to_read() -> None:
    lengths = {
        f"{path.relative_to(ROOT).as_posix()}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION} == {}


# --- constructors -----------------------------------------------------------------------------------

MAX_PARAMETERS = 7
"""Parameters of a constructor; one that needs more takes a context, an owner or its options as one object."""


def long_constructors(root: Path) -> dict[str, int]:
    """Constructors below ``root`` with too many parameters: ``FILE:CLASS`` and how many there are."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name in ("__init__", "__new__"):
                    arguments = method.args
                    count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) - 1
                    if count > MAX_PARAMETERS:
                        found[f"{path.relative_to(root).as_posix()}:{node.name}"] = count
    return found


def test_no_constructor_takes_too_many_parameters() -> None:
    assert long_constructors(ROOT) == {}


def test_a_long_constructor_is_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a/few.py": "class Few:\n    def __init__(self, a, b, c, *, d, e, f, g): ...\n",
            "a/many.py": "class Many:\n    def __init__(self, a, b, c, /, d, *, e, f, g, h): ...\n",
        },
    )
    assert long_constructors(tmp_path) == {"a/many.py:Many": 8}
