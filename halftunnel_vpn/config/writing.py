"""A small TOML writer for the files that the program itself writes (TOML 1.0.0, toml.io)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

Scalar = str | int | float | bool
Value = Scalar | Sequence[Scalar]
Document = Mapping[str, "Value | Document | Sequence[Document]"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def render(document: Document) -> str:
    """Return ``document`` as TOML: values before tables, text of several lines (PEM) as multi-line string."""
    lines: list[str] = []
    _render_table(document, (), lines)
    return "\n".join(lines).strip("\n") + "\n"


def _render_table(table: Document, path: tuple[str, ...], lines: list[str]) -> None:
    if path and not (table and all(_is_below(value) for value in table.values())):
        lines += ["", f"[{_place(path)}]"]
    _render_contents(table, path, lines)


def _render_contents(table: Document, path: tuple[str, ...], lines: list[str]) -> None:
    for key, value in table.items():
        if not _is_below(value):
            lines.append(f"{_key(key)} = {_value(cast(Value, value))}")
    for key, value in table.items():
        if isinstance(value, Mapping):
            _render_table(value, (*path, key), lines)
        elif _is_below(value):
            for each in cast("Sequence[Document]", value):
                lines += ["", f"[[{_place((*path, key))}]]"]
                _render_contents(each, (*path, key), lines)


def _is_below(value: object) -> bool:
    """Return whether ``value`` is a table, or a sequence of tables."""
    if isinstance(value, Mapping):
        return True
    return isinstance(value, Sequence) and bool(value) and isinstance(value[0], Mapping)


def _place(path: tuple[str, ...]) -> str:
    return ".".join(_key(part) for part in path)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _multi_line(value) if "\n" in value else _text(value)
    if isinstance(value, int | float):
        return repr(value)
    return "[" + ", ".join(_value(element) for element in value) + "]"


def _text(text: str) -> str:
    return f'"{"".join(_escaped(character) for character in text)}"'


def _multi_line(text: str) -> str:
    # The line break right after the opening quotes is not part of the text.
    return '"""\n' + "".join(c if c == "\n" else _escaped(c) for c in text) + '"""'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08X}"
