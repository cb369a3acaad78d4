"""Add the exits of one profile to the text of another one."""

from __future__ import annotations

from typing import Any, Final

from halftunnel_vpn.config import writing
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.config.schema import read_table
from halftunnel_vpn.errors import ConfigError

_OF_AN_EXIT: Final = ("upstream", "downstream", "tls")


def with_further_exit(text: str, other: str, *, source: str, name: str | None = None) -> str:
    """Return the profile ``text`` with the exits of the profile ``other`` behind its own.

    ``name`` is what the one exit of ``other`` is called; None: as it is called there. Each keeps its private
    key, so that two exits cannot tell that one client uses both. Raises ConfigError.
    """
    own, theirs = parse_client(text, source=source), parse_client(other, source="the profile to add")
    if name is not None and len(theirs.exits) != 1:
        raise ConfigError("the profile to add has several exits: their names cannot be changed here")
    document = read_table(other, "the profile to add")
    entries = [_entry(document, theirs.exit.name or theirs.name)] if "upstream" in document else []
    entries += [{"private_key": _private_key(document), **each} for each in _tables(document.get("exits"))]
    if name is not None:
        entries[0]["name"] = name
    taken = {entry.name for entry in own.exits}
    for entry in entries:
        if entry["name"] in taken:
            raise ConfigError(
                f"the profile {own.name} has an exit {entry['name']} already: give the new one another name "
                "(htvpn join: --name, htvpn profile add-exit: --exit)"
            )
    changed = f"{text.rstrip()}\n\n{writing.render({'exits': [_without_none(entry) for entry in entries]})}"
    parse_client(changed, source=source)
    return changed


def _entry(document: dict[str, Any], name: str) -> dict[str, Any]:
    exit = document["exit"]
    entry = {"name": name, "public_key": exit["public_key"], "private_key": _private_key(document)}
    if "priority" in exit:
        entry["priority"] = exit["priority"]
    return entry | {key: document[key] for key in _OF_AN_EXIT if key in document}


def _private_key(document: dict[str, Any]) -> str | None:
    key: str | None = document.get("client", {}).get("private_key")
    return key


def _tables(found: Any) -> list[dict[str, Any]]:
    return list(found or ())


def _without_none(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value is not None}
