"""Manual pages from the parser and the schema: htvpn(1), halftunnel-profile(5), halftunnel-server(5)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import date
from typing import Any

from halftunnel_vpn import __version__
from halftunnel_vpn.cli.arguments import build_parser
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.json_schema import json_schema
from halftunnel_vpn.config.schema import Rejected, RejectedElements
from halftunnel_vpn.config.server import ServerConfig

FILES = (
    ("/etc/halftunnel/profiles/NAME.toml", "A profile, see halftunnel-profile(5)."),
    ("/var/lib/halftunnel-server/server.toml", "The configuration of an exit, see halftunnel-server(5)."),
    ("/run/halftunnel/control.sock", "The control socket of the daemon, for root and the group halftunnel."),
    ("/var/lib/halftunnel", "State of the daemon: what it has changed on the host, and the kill switch."),
)

EXIT_CODES = (
    ("0", "Done."),
    ("1", "Failed; standard error says why."),
    ("2", "Wrong usage."),
    ("3", "Not connected."),
)


def pages(examples: dict[str, str], day: date) -> dict[str, str]:
    """Return the pages by file name. ``examples`` has the texts of configs/ by role."""
    return {
        "htvpn.1": command_page(build_parser(), day),
        "halftunnel-profile.5": file_page(
            "halftunnel-profile", "profile of a Half-Tunnel client", ClientProfile, examples["client"], day,
            "A profile is a TOML file, /etc/halftunnel/profiles/NAME.toml, mode 0600: it holds a private key."
            " The exit makes it: htvpn server add-client NAME.",
        ),
        "halftunnel-server.5": file_page(
            "halftunnel-server", "configuration of a Half-Tunnel exit", ServerConfig, examples["server"], day,
            "The configuration of an exit is a TOML file, server.toml in the directory of the exit. "
            "htvpn server init makes it. Names of files are relative to it. htvpn server check checks it.",
        ),
    }  # fmt: skip


def roff(text: str) -> str:
    """Return ``text`` so that roff prints it as it stands."""
    escaped = (
        text.replace("\\", "\\e")
        .replace("-", "\\-")
        .replace("`", "\\(ga")
        .replace("~", "\\(ti")
        .replace("^", "\\(ha")
    )
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.split("\n"))


def bold(text: str) -> str:
    """Return ``text`` in bold."""
    return f"\\fB{roff(text)}\\fR"


def italic(text: str) -> str:
    """Return ``text`` in italics, or underlined."""
    return f"\\fI{roff(text)}\\fR"


def head(name: str, section: int, day: date) -> str:
    """Return the line that begins a page."""
    return f'.TH {name.upper()} {section} {day.isoformat()} "Half\\-Tunnel {__version__}" "Half\\-Tunnel"'


# --- commands -------------------------------------------------------------------------------------


def command_page(parser: argparse.ArgumentParser, day: date) -> str:
    """Return htvpn(1)."""
    lines = [
        head("htvpn", 1, day), ".SH NAME", "htvpn \\- control a Half\\-Tunnel VPN, or run its exit",
        ".SH SYNOPSIS", ".B htvpn", f"{italic('COMMAND')} [{italic('OPTION')}...]",
        ".SH DESCRIPTION", roff(str(parser.description)), ".PP",
        "Upload leaves through WebSockets to one domain,",
        "download arrives through WebSockets from another one.",
        "Commands of a client ask the daemon over its control socket.", ".PP",
        f"Every command takes {bold('--help')}, and {bold('--debug')},",
        "which on failure also shows where in the program.",
        ".SH COMMANDS",
    ]  # fmt: skip
    for names, command, meaning in commands(parser, ()):
        lines += [f".SS htvpn {roff(' '.join(names))}", roff(f"{meaning[:1].upper()}{meaning[1:]}.")]
        lines += [".PP", synopsis(names, command)]
        for action in arguments(command):
            lines += [".TP", label(action), roff(described(action))]
    lines += [".SH EXIT STATUS"]
    for code, meaning in EXIT_CODES:
        lines += [".TP", bold(code), roff(meaning)]
    lines += [".SH FILES"]
    for path, meaning in FILES:
        lines += [".TP", italic(path), roff(meaning)]
    lines += [".SH SEE ALSO", ".BR halftunnel\\-profile (5),", ".BR halftunnel\\-server (5)", ""]
    return "\n".join(lines)


def commands(
    parser: argparse.ArgumentParser, names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser, str]]:
    """Yield every command that does something, with its names, its parser and its meaning."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                inner = action.choices[choice.dest]
                below = (*names, choice.dest)
                if any(isinstance(each, argparse._SubParsersAction) for each in inner._actions):
                    yield from commands(inner, below)
                else:
                    yield below, inner, choice.help or ""


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a command, its positional ones first."""
    everywhere = ("help", "debug")
    actions = [
        action
        for action in parser._actions
        if action.help != argparse.SUPPRESS and action.dest not in everywhere
    ]
    return sorted(actions, key=lambda action: bool(action.option_strings))


def synopsis(names: tuple[str, ...], parser: argparse.ArgumentParser) -> str:
    """Return the line that shows how a command is typed."""
    words = [bold(f"htvpn {' '.join(names)}")]
    for action in arguments(parser):
        word = label(action, short=True)
        words.append(word if action.required else f"[{word}]")
    return " ".join(words)


def label(action: argparse.Action, *, short: bool = False) -> str:
    """Return how an argument is typed: its names, and what it takes."""
    value = ""
    if action.nargs != 0:
        plain = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        value = "|".join(map(bold, action.choices)) if action.choices else italic(plain)
        if action.nargs in ("+", "*"):
            value += "..."
    if not action.option_strings:
        return value
    names = action.option_strings[-1:] if short else action.option_strings
    return ", ".join(bold(name) + (f" {value}" if value else "") for name in names)


def described(action: argparse.Action) -> str:
    """Return the help of an argument as a sentence."""
    help_text = (action.help or "").replace("%(default)s", str(action.default)).strip()
    return f"{help_text[:1].upper()}{help_text[1:]}." if help_text else ""


# --- files ----------------------------------------------------------------------------------------


def file_page(name: str, title: str, kind: type[Any], example: str, day: date, about: str) -> str:
    """Return the page of a configuration file that is a ``kind``."""
    lines = [
        head(name, 5, day), ".SH NAME", f"{roff(name)} \\- {roff(title)}",
        ".SH DESCRIPTION", roff(about), ".PP",
        roff('Durations are texts like "250ms", "8s", "5m", "1h", or numbers of seconds.'),
        roff('Sizes are texts like "64KiB", "16MiB", or numbers of bytes. Unknown keys are errors.'),
        ".B htvpn config example",
        f"prints an example with every key, {bold('htvpn config schema')} the JSON Schema.",
        ".SH KEYS",
    ]  # fmt: skip
    lines += list(table(kind, json_schema(kind, example, title=title), ""))
    lines += [".SH SEE ALSO", ".BR htvpn (1)", ""]
    return "\n".join(lines)


def table(kind: type[Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the lines of one table, keys first, tables below it after them."""
    if path:
        yield f".SS [{roff(path)}]"
    fields = kind.__dataclass_fields__
    below = []
    for name, found in schema["properties"].items():
        inner = f"{path}.{name}" if path else name
        if "section" in fields[name].metadata:
            below.append((fields[name].metadata["section"], found, inner))
            continue
        if "sections" in fields[name].metadata:
            below.append((fields[name].metadata["sections"], found["items"], inner))
            continue
        default = f" = {roff(json.dumps(found['default'], ensure_ascii=False))}" if "default" in found else ""
        yield from (".TP", bold(name) + default, roff(found["description"]))
        allowed = allowed_by(fields[name].metadata["check"])
        if allowed:
            yield f"Must be {roff(allowed)}."
        if name in schema.get("required", ()):
            yield "Required."
    for section, found, inner in below:
        yield from table(section, found, inner)


def allowed_by(check: Any) -> str:
    """Return what a check says of a value that nothing takes."""
    try:
        check(object())
    except Rejected as rejected:
        return rejected.allowed
    except RejectedElements:
        pass
    return ""
