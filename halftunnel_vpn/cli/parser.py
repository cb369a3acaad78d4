"""What all commands share: the parser, kinds of arguments, options of several commands."""

from __future__ import annotations

import argparse
from typing import NoReturn, TypeAlias

from halftunnel_vpn.config import DEFAULT_CONTROL_SOCKET
from halftunnel_vpn.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises an exception instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with one sentence."""
        raise UsageError(f"{message}; see '{self.prog} --help'")


Commands: TypeAlias = argparse._SubParsersAction


def command(commands: Commands[Parser], name: str, meaning: str, run: object) -> Parser:
    parser = commands.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
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
    parser.add_argument("--dir", metavar="DIR", type=path, required=True, help="the exit's directory")


def add_process_options(parser: Parser) -> None:
    parser.add_argument("--metrics", metavar="ADDR:PORT", help="serve /metrics, /healthz and /readyz there")
    parser.add_argument("--log-format", choices=("text", "json"), help="of the log on standard error")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        help="debug also logs names and addresses",
    )
