"""Settings from environment variables: one for each key, named after it.

``kill_switch`` in ``[protection]`` is ``HTVPN_PROTECTION_KILL_SWITCH``. An empty variable is not set.
The names are made from the schema, so a new key has its variable at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from typing import Any

import tomli

PREFIX = "HTVPN_"

FILE_SUFFIX = "_FILE"
"""``HTVPN_KEY_FILE`` names a file that holds the value of ``HTVPN_KEY``."""

_SEPARATORS = re.compile(r"[,\s]+")


def variable(table: str, key: str) -> str:
    """Return the name of the variable of ``key`` in ``table`` ("dns", "upstream.tls", "" for the top)."""
    return PREFIX + "_".join(filter(None, (*table.split("."), key))).upper()


def variables(kind: type, table: str = "") -> Iterator[str]:
    """Yield the name of every variable of the table ``kind`` and of those below it."""
    for field in dataclasses.fields(kind):
        if "section" in field.metadata:
            below = f"{table}.{field.name}" if table else field.name
            yield from variables(field.metadata["section"], below)
        elif "sections" not in field.metadata:  # an array of tables has no names for its keys
            yield variable(table, field.name)


def unknown(name: str, kind: type) -> str:
    """Return the sentence about a variable that no key of ``kind`` has."""
    known = {known.removeprefix(PREFIX): known for known in variables(kind)}
    close = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"names are {variable('table', 'key')}"
    return f"{name}: unknown variable; {hint}"


def readings(text: str) -> list[Any]:
    """Return the possible meanings of ``text`` as the value of a key, the most likely first.

    It is the text itself, a TOML value, words with commas or spaces between them, or a TOML array without
    its brackets.
    """
    found: list[Any] = [] if text == '""' else [text]
    for draft in (text, f"[{text}]"):
        try:
            document = tomli.loads(f"value = {draft}")
        except (ValueError, RecursionError):
            continue
        if document.keys() == {"value"}:
            found.append(document["value"])
    found.append([word for word in _SEPARATORS.split(text) if word])
    return found
