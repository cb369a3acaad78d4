"""The documents: links and names of files lead somewhere, prose has one width, and no command is missing."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from halftunnel_vpn.cli.arguments import build_parser
from halftunnel_vpn.cli.parser import subcommands, visible

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

WRAPPED = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
"""The changelog has one line for each change."""

WIDTH = 100
"""Columns of prose; tables and code may be wider."""

LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose_of(document: Path) -> list[str]:
    """Return the lines of ``document`` outside fenced code."""
    lines: list[str] = []
    fenced = False
    for line in document.read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            lines.append(line)
    return lines


def anchors_of(document: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of ``document``."""
    headings = [line.lstrip("#").strip() for line in prose_of(document) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_or_heading_leads_there(document: Path) -> None:
    broken: list[str] = []
    for target in LINK.findall("\n".join(prose_of(document))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "HOST.md", "BOUNDS.md"])
def test_every_file_that_a_document_of_the_source_names_is_there(name: str) -> None:
    text = "\n".join(prose_of(ROOT / "docs" / name))
    named = {file for file in re.findall(r"[\w./]+\.py\b", text) if "/" in file}
    folders = (ROOT / "halftunnel_vpn", ROOT)
    assert [file for file in sorted(named) if not any((folder / file).exists() for folder in folders)] == []


@pytest.mark.parametrize("document", WRAPPED, ids=lambda path: path.name)
def test_prose_is_wrapped_at_one_width(document: Path) -> None:
    prose = [line for line in prose_of(document) if not line.lstrip().startswith(("|", "![", "<"))]
    # output of a program is quoted as it is, a word that is too long cannot be broken
    too_long = [
        line
        for line in prose
        if len(line) > WIDTH and not line.startswith(("    ", "- OpenVPN", "- openconnect"))
    ]
    assert [line for line in too_long if " " in line.strip("-* ")] == []


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
    assert listed((ROOT / "README.md").read_text(), known) == known


EXAMPLE = re.compile(r"^(?: {4,8}|)(?:sudo |podman exec \w+ |/usr/local/bin/)?htvpn (.*)", re.MULTILINE)
"""A command in an indented or fenced example."""


def examples_of(document: Path) -> list[str]:
    """Return the arguments of each ``htvpn`` in an example, without comments, pipes and further commands."""
    text = document.read_text().replace("\\\n", " ")
    found = [re.split(r"\s(?:#|&&|\||>)|\s>", line)[0] for line in EXAMPLE.findall(text) if "`" not in line]
    return [re.sub(r"[][]", "", line).replace("$direction", "upstream") for line in found]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_an_example_is_accepted(document: Path) -> None:
    parser = build_parser()
    for line in examples_of(document):
        parser.parse_args(shlex.split(line))  # raises UsageError for what there is not


def test_there_are_commands_in_the_examples():
    assert sum(len(examples_of(document)) for document in DOCUMENTS) > 40
