"""Completion in shells: what may come next on a command line, from the parser itself.

The scripts in ``share/completion`` ask `htvpn __complete -- WORD...` and show what it prints: a line for each
candidate, its meaning after a tab, and `:files`, `:directories` or `:commands` where the shell knows more.
"""

from __future__ import annotations

import argparse
import os
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from halftunnel_vpn.cli import installation
from halftunnel_vpn.config import DEFAULT_CONTROL_SOCKET, DEFAULT_EXIT_DIRECTORY
from halftunnel_vpn.control import requests
from halftunnel_vpn.control.profile_store import PROFILES, ProfileStore
from halftunnel_vpn.control.status_schema import STATUS_PATH
from halftunnel_vpn.errors import HalfTunnelError
from halftunnel_vpn.host.external_program import ExternalProgram

MAX_CANDIDATES: Final = 1000
"""Names of profiles or clients that are offered."""

ASK_TIMEOUT: Final = 2.0
"""Seconds that the daemon may take. The user waits at the prompt."""

_SYSTEMCTL: Final = ExternalProgram("systemctl", "this host does not run systemd", "see 'systemctl status'")

_FROM_SHELL: Final = {"FILE": ":files", "PATH": ":files", "DIR": ":directories", "-- COMMAND": ":commands"}
"""What a shell finds better than this program, by the metavar of an argument."""


class Candidate(NamedTuple):
    """One word that may come next, or a directive to the shell."""

    text: str
    meaning: str = ""


def script(options: Namespace) -> int:
    """Print the completion script of a shell."""
    path = installation.SHARE / "completion" / f"htvpn.{options.shell}"
    print(path.read_text(encoding="utf-8"), end="")
    return 0


def complete(options: Namespace) -> int:
    """Print what may come next; nothing when that cannot be found out."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    for candidate in candidates(options.parser, words):
        print("\t".join(filter(None, candidate)))
    return 0


def candidates(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[Candidate]:
    """Return what may take the place of the last of ``words``, which is empty or the beginning of a word."""
    *before, last = words or [""]
    line = _Line(parser)
    for word in before:
        if word != "=":  # bash takes --option=value apart there
            line.take(word)
    if last == "=":
        last = ""
    if last.startswith("--") and "=" in last:
        option, _, value = last.partition("=")
        line.take(option)
        return [
            found if found.text.startswith(":") else Candidate(f"{option}={found.text}", found.meaning)
            for found in _matching(line.values(), value)
        ]
    return _matching(line.next(wants_option=last.startswith("-")), last)


class _Line:
    """A command line as far as it is typed."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        # Names of the commands so far: ["server", "run"].
        self._path: list[str] = []
        # Positional arguments of the innermost command that are still to come.
        self._positionals = _positionals(parser)
        # The option that takes the next word, and whether it must.
        self._open: argparse.Action | None = None
        self._must_take = False
        # The directory of an exit, once it is named.
        self._directory = DEFAULT_EXIT_DIRECTORY
        # Whether everything that follows belongs to another program.
        self._ended = False
        # Whether there is no such command.
        self._unknown = False

    def take(self, word: str) -> None:
        """Go on by one whole word."""
        if self._ended:
            return
        if self._open is not None and (self._must_take or not word.startswith("-")):
            if self._open.dest == "dir":
                self._directory = word
            self._must_take = False
            if self._open.nargs is None:
                self._open = None
            return
        self._open = None
        if word.startswith("-") and word != "-":
            self._take_option(word)
        elif self._positionals:
            self._take_positional(word)

    def values(self) -> Iterator[Candidate]:
        """What the option that is open takes."""
        if self._open is not None:
            yield from self._values_of(self._open)

    def next(self, *, wants_option: bool) -> Iterator[Candidate]:
        """What may come next."""
        if self._unknown:
            return
        if self._open is not None and (self._must_take or not wants_option):
            yield from self.values()
            if self._must_take:
                return
        if self._ended:
            yield Candidate(":commands")
        elif wants_option:
            yield from _options(self._parser)
        elif self._positionals:
            yield from self._values_of(self._positionals[0])
        else:
            yield from _options(self._parser)

    def _take_option(self, word: str) -> None:
        if word == "--":
            self._ended = bool(self._positionals and self._positionals[0].nargs == argparse.REMAINDER)
            return
        name, equals, value = word.partition("=")
        action = self._parser._option_string_actions.get(name)
        if action is None or action.nargs == 0:
            return
        if equals:
            if action.dest == "dir":
                self._directory = value
        else:
            self._open, self._must_take = action, True

    def _take_positional(self, word: str) -> None:
        action = self._positionals[0]
        if isinstance(action, argparse._SubParsersAction):
            inner = action.choices.get(word)
            self._unknown = inner is None
            if inner is not None:
                self._parser, self._positionals = inner, _positionals(inner)
                self._path.append(word)
        elif action.nargs == argparse.REMAINDER:
            self._ended = True
        elif action.nargs not in ("*", "+"):
            self._positionals = self._positionals[1:]

    def _values_of(self, action: argparse.Action) -> Iterator[Candidate]:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield Candidate(choice.dest, choice.help or "")
        elif action.choices is not None:
            yield from (Candidate(str(choice)) for choice in action.choices)
        elif action.metavar in _FROM_SHELL:
            yield Candidate(_FROM_SHELL[str(action.metavar)])
        elif action.metavar == "PROFILE":
            yield from (Candidate(name, "a profile") for name in profile_names())
            yield Candidate(":files")
        elif action.metavar == "EXIT":
            yield from (Candidate(name, "an exit") for name in exit_names())
        elif action.metavar == "NAME" and self._path == ["profile", "add"]:
            yield Candidate(":files")
        elif action.metavar in ("NAME", "CLIENT") and self._path[-1:] not in (["add"], ["add-client"]):
            if self._path[:1] == ["server"]:
                yield from (Candidate(name, "a client") for name in client_names(Path(self._directory)))
            elif self._path[:1] == ["profile"]:
                yield from (Candidate(name, "a profile") for name in profile_names())


def profile_names() -> list[str]:
    """Return the names of this host's profiles: from the files, or from a daemon that runs."""
    try:
        return ProfileStore(PROFILES).names()[:MAX_CANDIDATES]
    except (HalfTunnelError, OSError):
        return _daemons_profiles()


def exit_names() -> list[str]:
    """Return the exits of the active profile: from its file, or from a daemon that runs."""
    try:
        store = ProfileStore(PROFILES)
        return [entry.name for entry in store.load(store.resolve(None)).exits]
    except (HalfTunnelError, OSError):
        status = _of_running_daemon(STATUS_PATH)
    return [str(entry["name"]) for entry in status.get("exits", ())]


def client_names(directory: Path) -> list[str]:
    """Return the names of an exit's clients; none for users who may not see them."""
    try:
        found = sorted(name for name in os.listdir(directory / "clients") if name.endswith(".toml"))
    except OSError:
        return []
    return [name.removesuffix(".toml") for name in found[:MAX_CANDIDATES]]


def _daemons_profiles() -> list[str]:
    found = _of_running_daemon("/v1/profiles").get("profiles", ())
    return [str(entry["name"]) for entry in found[:MAX_CANDIDATES]]


def _of_running_daemon(target: str) -> dict[str, Any]:
    """Return what a running daemon answers; asking one that does not run would start it."""
    try:
        if _SYSTEMCTL.run(["is-active", "--quiet", "halftunnel.service"], timeout=ASK_TIMEOUT).returncode:
            return {}
        return requests.command(DEFAULT_CONTROL_SOCKET, "GET", target, timeout=ASK_TIMEOUT) or {}
    except HalfTunnelError:
        return {}


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _options(parser: argparse.ArgumentParser) -> Iterator[Candidate]:
    for action in parser._actions:
        if action.help != argparse.SUPPRESS:
            for name in action.option_strings:
                yield Candidate(name, (action.help or "").replace("%(default)s", str(action.default)))


def _matching(found: Iterable[Candidate], beginning: str) -> list[Candidate]:
    return [each for each in found if each.text.startswith((beginning, ":"))]
