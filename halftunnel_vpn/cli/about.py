"""`htvpn help` and `htvpn version`."""

from __future__ import annotations

from argparse import Namespace

from halftunnel_vpn import __build__
from halftunnel_vpn.cli.parser import Parser, subcommands


def explain(options: Namespace) -> int:
    """Print the help of a command, as `htvpn COMMAND --help` does, or of all."""
    parser: Parser = options.parser
    for word in options.words:
        below = next(subcommands(parser), None)
        if below is None:
            break  # arguments of the command
        parser._check_value(below, word)
        parser = below.choices[word]
    parser.print_help()
    return 0


def version(options: Namespace) -> int:
    """Print the version, as `htvpn --version` does."""
    print(f"htvpn {__build__}")
    return 0
