"""What all commands share: the parser, kinds of arguments, options of several commands."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TypeAlias

from halftunnel_vpn.config import DEFAULT_CONTROL_SOCKET, DEFAULT_EXIT_DIRECTORY
from halftunnel_vpn.errors import UsageError

OTHER_WORDS = {
    "connect": "up",
    "start": "up",
    "disconnect": "down",
    "stop": "down",
    "restart": "reconnect",
    "doctor": "check",
    "import": "profile add",
    "profiles": "profile list",
    "socks": "proxy",
}
"""What other programs call our commands."""


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises an exception instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with one sentence."""
        raise UsageError(f"{message}; see '{self.prog} --help'")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse an unknown command with the one that was probably meant."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            meant = _probably(str(value), action)
            hint = f" (did you mean '{self.prog} {meant}'?)" if meant else ""
            self.error(f"there is no command '{str(value)[:40]}'{hint}")
        super()._check_value(action, value)


class InterleavedParser(Parser):
    """A parser whose options may stand between positional arguments, the first of which are optional.

    argparse gives optional positional arguments nothing once an option has followed them.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the options first."""
        options: list[str] = []
        others: list[str] = []
        words = iter(args or ())
        for word in words:
            if word == "--":
                others += [word, *words]
            elif not word.startswith("-") or word == "-":
                others.append(word)
            else:
                options.append(word)
                action = self._option_string_actions.get(word)
                if action is not None and action.nargs is None:
                    options += [value for value in [next(words, None)] if value is not None]
        return super().parse_known_args([*options, *others], namespace)


def visible(action: argparse._SubParsersAction[Parser]) -> list[str]:
    """Return the commands that the help lists."""
    return [choice.dest for choice in action._choices_actions]


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse._SubParsersAction[Parser]]:
    """Yield what holds the commands below ``parser``."""
    yield from (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _probably(word: str, action: argparse._SubParsersAction[Parser]) -> str | None:
    """Return the command that ``word`` was probably meant to be: of another name, below, or misspelt."""
    names = visible(action)
    meant = OTHER_WORDS.get(word)
    if meant is not None and meant.split()[0] in names:
        return meant
    for name in names:
        for below in subcommands(action.choices[name]):
            if word in visible(below):
                return f"{name} {word}"
    close = difflib.get_close_matches(word, names, n=1)
    return close[0] if close else None


Commands: TypeAlias = argparse._SubParsersAction


def command(
    commands: Commands[Parser], name: str, meaning: str, run: object, *, kind: type[Parser] = Parser
) -> Parser:
    """Add a command; ``kind`` is the class of its parser."""
    usual, commands._parser_class = commands._parser_class, kind
    parser = commands.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
    commands._parser_class = usual
    parser.add_argument("--debug", action="store_true", help="on failure, also print a traceback")
    parser.set_defaults(run=run)
    return parser


def path(text: str) -> str:
    """Return a path; refuse an empty one, which would mean the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def natural(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError("must be a whole number")
    return int(text)


def minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes <= 60:
        raise argparse.ArgumentTypeError("must be from 0 to 60")
    return minutes


def add_socket(parser: Parser) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=path,
        default=DEFAULT_CONTROL_SOCKET,
        help="control socket (%(default)s)",
    )


def add_directory(parser: Parser) -> None:
    parser.add_argument(
        "--dir",
        metavar="DIR",
        type=path,
        default=DEFAULT_EXIT_DIRECTORY,
        help="the exit's directory (%(default)s)",
    )


def add_process_options(parser: Parser) -> None:
    parser.add_argument("--metrics", metavar="ADDR:PORT", help="serve /metrics, /healthz and /readyz there")
    parser.add_argument("--log-format", choices=("text", "json"), help="of the log on standard error")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        help="debug also logs names and addresses",
    )
