"""No function, class or constant of the package is left that nothing in the package reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "halftunnel_vpn"

CALLED_BY_PYTHON = {
    "buffer_updated", "connection_lost", "connection_made", "datagram_received", "eof_received",
    "emit", "error_received", "get_buffer", "pause_writing", "resume_writing",
}  # fmt: skip
"""Methods of asyncio's protocols and of handlers of the log."""

CALLED_BY_TEXTUAL = {
    "action_down", "action_help", "action_pause", "action_reconnect", "action_sort", "action_up",
    "compose", "on_key", "on_mount", "on_resize", "on_unmount",
}  # fmt: skip
"""Methods that the screen of `htvpn top` has for textual: keys, layout, events."""

FOR_TESTS = {"FakePolicy", "FakeTunnel", "FakeKernel"}
"""Fakes that stand beside the interface that they fake."""

SHOWN_BY_TESTS = {
    "START": "the states as the documents show them",
    "STATES": "the states as the documents show them",
    "hour": "the bound on padding",
}
"""What only tests read, and what they show with it."""


def unread(root: Path) -> dict[str, str]:
    """Return names defined below ``root`` and read nowhere there, each with its file and line."""
    defined: dict[str, str] = {}
    read = set[str]()
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, line in definitions(tree):
            defined[name] = f"{path.relative_to(root).as_posix()}:{line}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                read.add(node.id)
            elif isinstance(node, ast.Attribute):
                read.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                read.update(alias.name for alias in node.names)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)  # getattr, a forward reference
    return {name: place for name, place in defined.items() if name not in read}


def definitions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the names of classes, functions, methods and module constants; not those of fakes' methods."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("__"):
                yield node.name, node.lineno
            if not isinstance(node, ast.ClassDef):
                continue
            if node.name not in FOR_TESTS:
                yield from ((name, line) for name, line in definitions(node) if not name.isupper())
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and target.id.isupper():
                    yield target.id, node.lineno


def test_nothing_is_defined_that_nothing_reads() -> None:
    allowed = CALLED_BY_PYTHON | CALLED_BY_TEXTUAL | FOR_TESTS | SHOWN_BY_TESTS.keys()
    assert {name: place for name, place in unread(PACKAGE).items() if name not in allowed} == {}


def test_a_function_that_only_a_test_would_call_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "LIMIT = 3\nUSED = 4\n"
        "class Kept:\n    MEMBER = 1\n    def used(self): return USED\n    def spare(self): ...\n"
        "def main(): Kept().used()\nmain()\n"
    )
    assert unread(tmp_path) == {"LIMIT": "a.py:1", "spare": "a.py:6"}
