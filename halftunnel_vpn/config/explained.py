"""The explanations in an example configuration: the comment of each key, and the value that it shows.

A comment stands above its keys, or above the header of a table; the keys that follow without a comment of
their own share it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HEADER = re.compile(r"\[([A-Za-z_.]+)\]")
_ARRAY = re.compile(r"# \[\[([a-z_.]+)\]\]")
_KEY = re.compile(r"([a-z0-9_]+) = (.+)")
_RULE = re.compile(r"# --- .+ -{3,}")


class Explanation(NamedTuple):
    """One key, or one table when ``key`` is empty."""

    table: str
    key: str
    # The value as the example writes it, empty for a table.
    literal: str
    # The comment, one line without line breaks.
    text: str


def explanations(example: str) -> list[Explanation]:
    """Return what ``example``, the text of a TOML file, explains, in its order."""
    found: list[Explanation] = []
    table, comment, comment_ends = "", [""], False
    for line in example.splitlines():
        if array := _ARRAY.fullmatch(line):  # an example of a table that there may be several of
            found.append(Explanation(array[1], "", "", " ".join(comment).strip()))
            comment, comment_ends = [], True
        elif line.startswith("#") and not _RULE.fullmatch(line):
            if comment_ends:
                comment, comment_ends = [], False
            comment.append(line.removeprefix("#").strip())
        elif header := _HEADER.fullmatch(line):
            table = header[1]
            found.append(Explanation(table, "", "", " ".join(comment).strip()))
            comment, comment_ends = [], True
        elif key := _KEY.fullmatch(line):
            found.append(Explanation(table, key[1], key[2], " ".join(comment).strip()))
            comment_ends = True
        else:
            comment, comment_ends = [], True
    return found


def explanation_of(table: str, key: str, explained: list[Explanation]) -> Explanation:
    """Return what the example says of ``key``, which may stand in a table that says the same of it.

    Tables of the downstream direction refer to those of the upstream one, ``upstream.tls`` to ``tls``.
    Where a key has no explanation, that of its table is taken.
    """
    known = {(each.table, each.key): each for each in explained}
    own = known.get((table, key), Explanation(table, key, "", ""))
    elsewhere = [(table.replace("downstream", "upstream"), key), (table.rpartition(".")[2], key), (table, "")]
    elsewhere.append((table.replace("downstream", "upstream"), ""))
    for place in elsewhere:
        found = known.get(place)
        if found is not None and not own.text:
            own = own._replace(text=found.text, literal=own.literal or found.literal)
    return own
