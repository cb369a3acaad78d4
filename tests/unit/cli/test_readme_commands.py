"""README's table of commands and the parser have the same commands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from halftunnel_vpn.cli.arguments import build_parser
from halftunnel_vpn.cli.parser import subcommands, visible

README = Path(__file__).parents[3] / "README.md"


def commands(parser: argparse.ArgumentParser, *before: str) -> Iterator[str]:
    """Yield the commands that the help lists: ``up``, ``server init``."""
    for action in subcommands(parser):
        for name in visible(action):
            below = list(commands(action.choices[name], *before, name))
            yield from below or [" ".join((*before, name))]


def listed(text: str, known: set[str]) -> set[str]:
    """Return the commands of the table: a code span without `htvpn` has the group of the span before."""
    table = re.search(r"^\| command \| \|\n(?:\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    found = set()
    for row in table[0].splitlines()[2:]:
        group = ""
        for span in re.findall(r"`([^`]*)`", row.split("|")[1]):
            words = span.split()
            if words[0] == "htvpn":
                words = words[1:]
                group = words[0] if any(name.startswith(f"{words[0]} ") for name in known) else ""
                words = words[1:] if group else words
            found.add(f"{group} {words[0]}".strip())
    return found


def test_the_readme_lists_every_command():
    known = set(commands(build_parser()))
    assert listed(README.read_text(), known) == known
