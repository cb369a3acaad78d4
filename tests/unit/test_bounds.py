"""``docs/BOUNDS.md`` names every bound, where it is decided, and its real value."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.server import ServerConfig

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "BOUNDS.md"
PACKAGE = ROOT / "halftunnel_vpn"

CONFIGURATIONS = {"client.toml": ClientProfile, "server.toml": ServerConfig}

UNITS = {
    "": 1,
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "ms": 0.001,
    "s": 1,
    "min": 60,
    "h": 3600,
    "days": 86400,
}

REFERENCE = re.compile(r"`(?P<place>[\w/.]+\.(?:py|toml)): (?P<name>[\w.]+)`")
VALUE = re.compile(r"(?P<number>-?[\d,.]+)(?: (?P<unit>[A-Za-z]+))?")


class Row(NamedTuple):
    """One row: the constant's file and name as written, and the value as written."""

    place: str
    name: str
    value: str


def rows(text: str) -> Iterator[Row]:
    """Yield the rows of all tables of ``text`` whose second column names a constant."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 5 or cells[1] in ("what", "---") or set(cells[1]) <= {"-"} or not cells[2]:
            continue
        reference = REFERENCE.fullmatch(cells[2])
        assert reference is not None, f"not a constant or key: {cells[2]!r}"
        yield Row(reference["place"], reference["name"], cells[3])


def value_of(text: str) -> float | None:
    """Return the value that a cell means: a number with a unit, or None for ``not set``."""
    if text == "not set":
        return None
    match = VALUE.fullmatch(text)
    assert match is not None and (match["unit"] or "") in UNITS, f"not a value: {text!r}"
    return float(match["number"].replace(",", "")) * UNITS[match["unit"] or ""]


def real_value(row: Row) -> object:
    """Return the value of the constant, or the default of the key, as the program has it.

    Raises ImportError, AttributeError or KeyError when it is not there.
    """
    if row.place in CONFIGURATIONS:
        holder: object = CONFIGURATIONS[row.place]
    else:
        module = row.place.removesuffix(".py").replace("/", ".")
        holder = importlib.import_module(f"halftunnel_vpn.{module}")
    for part in row.name.split("."):
        if isinstance(holder, type) and dataclasses.is_dataclass(holder):
            field = {item.name: item for item in dataclasses.fields(holder)}[part]
            made = field.default is dataclasses.MISSING
            holder = field.default_factory() if made and callable(field.default_factory) else field.default
        elif inspect.isroutine(holder):
            holder = inspect.signature(holder).parameters[part].default
        else:
            holder = getattr(holder, part)
    return holder


def problems(text: str) -> list[str]:
    """Return what is wrong with the rows of ``text``, a sentence each."""
    found: list[str] = []
    for row in rows(text):
        where = f"{row.place}: {row.name}"
        try:
            real = real_value(row)
        except (ImportError, AttributeError, KeyError) as error:
            found.append(f"{where} is not there ({error})")
            continue
        written = value_of(row.value)
        is_same = real is None if written is None else real == pytest.approx(written)
        if not is_same:
            found.append(f"{where} is {real}, not {row.value}")
    return found


def bounds_in_the_package() -> set[str]:
    """Return every module-level constant named MAX_... whose value is a number."""
    found: set[str] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            target = node.target if isinstance(node, ast.AnnAssign) else None
            if isinstance(node, ast.Assign):
                target = node.targets[0] if isinstance(node.targets[0], ast.Name) else None
            if isinstance(target, ast.Name) and target.id.startswith("MAX_"):
                found.add(f"{path.relative_to(PACKAGE).as_posix()}: {target.id}")
    return found


def test_every_bound_has_the_value_that_the_document_says() -> None:
    text = DOCUMENT.read_text()
    assert len(list(rows(text))) > 150
    assert problems(text) == []


def test_every_constant_that_is_named_as_a_bound_is_in_the_document() -> None:
    written = {f"{row.place}: {row.name}" for row in rows(DOCUMENT.read_text())}
    missing = sorted(bounds_in_the_package() - written)
    assert missing == [], "add a row for each to docs/BOUNDS.md"


@pytest.mark.parametrize(
    ("reference", "value", "problem"),
    [
        ("session/send_side.py: RING", "4096", ""),
        ("session/send_side.py: UNSENT_LIMIT", "256 KiB", ""),
        ("server.toml: limits.dial_timeout", "10 s", ""),
        ("server.toml: limits.memory", "not set", ""),
        ("dns/turns.py: TurnLimits.waiting", "4,096", ""),
        ("session/send_side.py: RING", "4097", "is 4096, not 4097"),
        ("session/send_side.py: GONE", "1", "is not there"),
        ("session/gone.py: RING", "1", "is not there"),
        ("dns/turns.py: TurnLimits.gone", "1", "is not there"),
        ("client.toml: limits.gone", "1", "is not there"),
        ("server.toml: limits.memory", "1", "is None, not 1"),
    ],
)
def test_a_wrong_vanished_or_renamed_constant_is_found(reference: str, value: str, problem: str) -> None:
    found = problems(f"| something | `{reference}` | {value} | closed |")
    assert problem in "".join(found)
    assert bool(found) == bool(problem)
