"""`htvpn profile list|add|remove|use`: root changes the files, others ask the daemon to."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from halftunnel_vpn.cli import service


def show(options: Namespace) -> int:
    """One line a profile; ``*`` before the one that is meant when nobody names one."""
    store = _store(options)
    if store is not None:
        entries: list[dict[str, Any]] = [entry._asdict() for entry in store.entries()]
    else:
        entries = service.command(options.socket, "GET", "/v1/profiles")["profiles"]
    for entry in entries:
        problem = f": {entry['problem'].splitlines()[0]}" if entry["problem"] else ""
        print(f"{'*' if entry['chosen'] else ' '} {entry['name']}{problem}")
    if not entries:
        print("htvpn: there is no profile; add one with 'htvpn profile add NAME FILE'", file=sys.stderr)
    return 0


def add(options: Namespace) -> int:
    """Check a profile and keep it."""
    text = _text(options.file)
    store = _store(options)
    if store is not None:
        store.put(options.name, text, replace=options.replace)
    else:
        query = "" if options.replace else "?replace=no"
        service.command(options.socket, "PUT", f"/v1/profiles/{_in_url(options.name)}{query}", text.encode())
    print(f"profile {options.name} is kept")
    return 0


def remove(options: Namespace) -> int:
    """Forget a profile and its key."""
    store = _store(options)
    if store is not None:
        store.remove(options.name)
    else:
        service.command(options.socket, "DELETE", f"/v1/profiles/{_in_url(options.name)}")
    print(f"profile {options.name} is removed")
    return 0


def use(options: Namespace) -> int:
    """Have a profile meant when nobody names one."""
    store = _store(options)
    if store is not None:
        store.use(options.name)
    else:
        service.command(options.socket, "POST", f"/v1/profiles/{_in_url(options.name)}/use")
    print(f"profile {options.name} is meant from now on; 'htvpn up' connects through it")
    return 0


def _store(options: Namespace) -> Any:
    """The files themselves for root or a directory that is named; None where the daemon has to be asked."""
    if options.dir is None and os.geteuid() != 0:
        return None
    from halftunnel_vpn.control.profile_store import PROFILES, ProfileStore

    return ProfileStore(Path(options.dir) if options.dir is not None else PROFILES)


def _text(file: str) -> str:
    from halftunnel_vpn.config.schema import MAX_TEXT
    from halftunnel_vpn.control import text_file

    if file == "-":
        return text_file.decode(sys.stdin.buffer.read(MAX_TEXT + 1), "standard input")
    return text_file.read_text(Path(file))


def _in_url(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")
