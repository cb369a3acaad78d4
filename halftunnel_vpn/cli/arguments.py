"""The contract of the command line, as an argparse parser."""

from __future__ import annotations

import argparse
from typing import NoReturn

from halftunnel_vpn import __build__
from halftunnel_vpn.cli import entries
from halftunnel_vpn.config import DEFAULT_CONTROL_SOCKET
from halftunnel_vpn.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises an exception instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with one sentence."""
        raise UsageError(f"{message}; see '{self.prog} --help'")


def build_parser() -> Parser:
    """Return the parser of `htvpn`. The function of the chosen command is ``options.run``."""
    parser = Parser(
        prog="htvpn",
        description="A full-tunnel VPN whose two directions never share a network path.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not connected.",
    )
    parser.add_argument("--version", action="version", version=f"htvpn {__build__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_server(commands)

    up = _command(commands, "up", "connect this host through a profile", entries.up)
    up.add_argument(
        "profile",
        nargs="?",
        metavar="PROFILE",
        help="a name in /etc/halftunnel/profiles, or a file; not needed where there is only one",
    )
    up.add_argument("--foreground", action="store_true", help="do not use the daemon; log on standard error")
    _add_process_options(up)
    up.add_argument(
        "--socket",
        metavar="PATH",
        type=_path,
        help="control socket (default: the daemon's, or as the profile says)",
    )

    down = _command(commands, "down", "disconnect and restore the host", entries.down)
    _add_socket(down)

    status = _command(commands, "status", "show the state of the tunnel", entries.status)
    status.add_argument("--json", action="store_true", help="print one JSON object (docs/CONTROL.md)")
    status.add_argument("--watch", action="store_true", help="repeat every second until interrupted")
    _add_socket(status)

    _add_proxy(commands)

    healthcheck = _command(
        commands, "healthcheck", "exit code 0 when healthy, for containers", entries.healthcheck
    )
    healthcheck.add_argument("--dir", metavar="DIR", type=_path, help="ask the exit of this directory")
    healthcheck.add_argument(
        "--socket", metavar="PATH", type=_path, help="ask the client at this control socket"
    )
    _add_daemon_commands(commands)
    _add_profile(commands)
    _add_setup(commands, parser)

    _add_audit(commands)
    demo = _command(commands, "demo", "try a whole tunnel in namespaces on this host", entries.demo)
    demo.add_argument("--keep", action="store_true", help="leave it up afterwards and print how to enter")
    demo.add_argument("--remove", action="store_true", help="only remove what an earlier --keep has left")
    return parser


_Commands = argparse._SubParsersAction


def _add_proxy(commands: _Commands[Parser]) -> None:
    proxy = _command(
        commands, "proxy", "serve SOCKS and HTTP proxies through the exit, without root", entries.proxy
    )
    proxy.add_argument(
        "profile",
        nargs="?",
        metavar="PROFILE",
        help="a file, or a name in ~/.config/halftunnel; not needed where there is only one",
    )
    for option, metavar, meaning in (
        ("--socks", "ADDR:PORT", "serve SOCKS5 and SOCKS4a there, or at the path of a Unix socket"),
        ("--http", "ADDR:PORT", "serve an HTTP proxy there, or at the path of a Unix socket"),
        (
            "--forward",
            "LISTEN=HOST:PORT",
            "pass what connects to LISTEN on to HOST:PORT, whose name the exit resolves",
        ),
        ("--allow", "NETWORK", "also serve programs on hosts of this network (default: this host alone)"),
    ):
        proxy.add_argument(option, metavar=metavar, action="append", default=[], help=meaning)
    proxy.add_argument(
        "--users", metavar="FILE", type=_path, help="ask for a user and a password: NAME:PASSWORD, one a line"
    )
    _add_process_options(proxy)


def _add_daemon_commands(commands: _Commands[Parser]) -> None:
    reconnect = _command(commands, "reconnect", "reopen every connection; flows stay", entries.reconnect)
    _add_socket(reconnect)

    reload = _command(commands, "reload", "make the daemon read its profile again", entries.reload)
    _add_socket(reload)

    logs = _command(commands, "logs", "show the daemon's last log lines", entries.logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    logs.add_argument("-n", "--lines", type=_natural, default=1000, metavar="N", help="at most the last N")
    logs.add_argument("--json", action="store_true", help="one JSON object per line")
    _add_socket(logs)

    portal = _command(commands, "portal", "open a network's login page for a while", entries.portal)
    portal.add_argument(
        "--minutes", type=_minutes, default=5.0, metavar="N", help="0 to 60; 0 closes it (default: 5)"
    )
    _add_socket(portal)

    for name, programs, meaning in (
        ("exclude", "excluded", "run a command outside the tunnel"),
        (
            "only",
            "only",
            'run a command inside the tunnel, where programs = "only"',
        ),
    ):
        listed = _command(commands, name, meaning, entries.programs)
        listed.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run")
        listed.set_defaults(list=programs, command=name)
        _add_socket(listed)

    repair = _command(commands, "repair", "undo what a killed client left on this host", entries.repair)
    repair.add_argument("--lift", action="store_true", help="also lift a kill switch that was left")
    _add_socket(repair)


def _add_audit(commands: _Commands[Parser]) -> None:
    audit = _command(commands, "audit", "score what the paths show to those who watch them", entries.audit)
    audit.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=_path,
        help="'record' to have the daemon write a log; such a log, or captures (pcap) of one time",
    )
    audit.add_argument(
        "--for",
        dest="length",
        type=_length,
        default=600.0,
        metavar="TIME",
        help="of 'record': how long, as in 90s, 10m or 1h (default: 10m)",
    )
    _add_socket(audit)
    audit.add_argument("--json", action="store_true", help="as one JSON object")
    audit.add_argument("--png", metavar="FILE", type=_path, help="also draw what each path shows")
    audit.add_argument(
        "--mode", choices=("off", "split", "balanced", "strong"), help="whose promise a capture is to keep"
    )
    audit.add_argument(
        "--exit",
        metavar="ADDR[:PORT]",
        nargs="+",
        action="extend",
        help="of a capture: only connections to these (default: all)",
    )


def _add_profile(commands: _Commands[Parser]) -> None:
    profile = commands.add_parser("profile", help="manage the profiles of this host")
    actions = profile.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, meaning, run in (
        ("list", "list the profiles; * marks the active one", entries.profile_list),
        ("add", "check a profile and store it", entries.profile_add),
        ("remove", "remove a profile and its key", entries.profile_remove),
        ("use", "make a profile the active one", entries.profile_use),
    ):
        action = _command(actions, name, meaning, run)
        if name != "list":
            action.add_argument("name", metavar="NAME")
        if name == "add":
            action.add_argument("file", metavar="FILE", type=_path, help="- for standard input")
            action.add_argument("--replace", action="store_true", help="replace a profile of that name")
        action.add_argument(
            "--dir", metavar="DIR", type=_path, help="their directory (default: /etc/halftunnel/profiles)"
        )
        _add_socket(action)


def _add_setup(commands: _Commands[Parser], whole: Parser) -> None:
    install = _command(commands, "install", "install the units of this program, as root", entries.install)
    install.add_argument("role", choices=("client", "server"))
    uninstall = _command(
        commands, "uninstall", "remove the units, profiles, keys and state", entries.uninstall
    )
    uninstall.add_argument("--keep-configuration", action="store_true", help="keep profiles and keys")

    config = commands.add_parser("config", help="what a configuration file may say")
    actions = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, meaning, run in (
        ("example", "print a configuration file with every key and its explanation", entries.config_example),
        ("schema", "print the JSON Schema of a configuration file, for editors", entries.config_schema),
    ):
        _command(actions, name, meaning, run).add_argument("role", choices=("client", "server"))

    completion = _command(
        commands, "completion", "print the completion script of a shell", entries.completion
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    # Without help it is not listed: only completion scripts call it.
    complete = commands.add_parser("__complete")
    complete.add_argument("words", nargs=argparse.REMAINDER)
    complete.set_defaults(run=entries.complete, parser=whole)


def _path(text: str) -> str:
    """Return a path; refuse an empty one, which would mean the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _natural(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError("must be a whole number")
    return int(text)


def _length(text: str) -> float:
    from halftunnel_vpn.config.schema import Rejected
    from halftunnel_vpn.config.values import duration

    try:
        return duration(1, 86400)(text)
    except Rejected as rejected:
        raise argparse.ArgumentTypeError(f"must be {rejected.allowed}") from None


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes <= 60:
        raise argparse.ArgumentTypeError("must be from 0 to 60")
    return minutes


def _add_socket(parser: Parser) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=_path,
        default=DEFAULT_CONTROL_SOCKET,
        help="control socket (%(default)s)",
    )


def _add_server(commands: _Commands[Parser]) -> None:
    server = commands.add_parser("server", help="run an exit, and admit clients to it")
    actions = server.add_subparsers(title="commands", metavar="COMMAND", required=True)

    init = _command(actions, "init", "make the keys and the configuration of an exit", entries.server_init)
    _add_directory(init)
    for direction, letter in (("upstream", "A"), ("downstream", "B")):
        init.add_argument(
            f"--{direction}",
            metavar="URL",
            nargs="+",
            action="extend",
            required=True,
            help=f"URL of the {direction} listener for clients (domain {letter}), ws:// or wss://",
        )
    for direction in ("upstream", "downstream"):
        init.add_argument(f"--listen-{direction}", metavar="ADDR:PORT", help="listen here for its legs")
    init.add_argument(
        "--allow-egress",
        metavar="NETWORK",
        nargs="+",
        action="extend",
        default=[],
        help="private networks that clients may reach",
    )
    init.add_argument(
        "--dns",
        metavar="ADDR",
        nargs="+",
        action="extend",
        default=[],
        help="resolvers to query (default: those of /etc/resolv.conf)",
    )
    init.add_argument(
        "--certificate", metavar="FILE", type=_path, help="TLS certificate chain (default: one of our own)"
    )
    init.add_argument("--certificate-key", metavar="FILE", type=_path, help="private key of that certificate")
    init.add_argument(
        "--behind-proxy",
        action="store_true",
        help="listen without TLS: a reverse proxy on this machine terminates it",
    )

    add = _command(actions, "add-client", "admit a client, and write its profile", entries.add_client)
    add.add_argument("name", metavar="NAME")
    _add_directory(add)
    add.add_argument(
        "--output",
        metavar="FILE",
        type=_path,
        help="a new file for the profile, mode 0600 (default: standard output)",
    )
    add.add_argument(
        "--shaping",
        choices=("off", "split", "strong"),
        default="off",
        help="[shaping] mode of the profile: what observers of the paths do not learn (default: off)",
    )
    add.add_argument(
        "--if-missing",
        action="store_true",
        help="do nothing, and succeed, when there is a client of that name",
    )

    remove = _command(actions, "remove-client", "remove a client", entries.remove_client)
    remove.add_argument("name", metavar="NAME")
    _add_directory(remove)

    check = _command(
        actions, "check", "check the files of an exit before it is reloaded", entries.server_check
    )
    _add_directory(check)

    certificate = _command(
        actions,
        "certificate",
        "install a renewed certificate where the exit reads it",
        entries.server_certificate,
    )
    certificate.add_argument(
        "--certificate", metavar="FILE", type=_path, required=True, help="certificate chain, PEM"
    )
    certificate.add_argument(
        "--certificate-key", metavar="FILE", type=_path, required=True, help="its private key, PEM"
    )
    certificate.add_argument(
        "--direction",
        choices=("upstream", "downstream"),
        action="append",
        help="the listener that presents it (default: both)",
    )
    _add_directory(certificate)

    run = _command(
        actions, "run", "run the exit in the foreground, logging on standard error", entries.server_run
    )
    _add_directory(run)
    _add_process_options(run)


def _command(commands: _Commands[Parser], name: str, meaning: str, run: object) -> Parser:
    parser = commands.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
    parser.add_argument("--debug", action="store_true", help="on failure, also print a traceback")
    parser.set_defaults(run=run)
    return parser


def _add_directory(parser: Parser) -> None:
    parser.add_argument("--dir", metavar="DIR", type=_path, required=True, help="the exit's directory")


def _add_process_options(parser: Parser) -> None:
    parser.add_argument("--metrics", metavar="ADDR:PORT", help="serve /metrics, /healthz and /readyz there")
    parser.add_argument("--log-format", choices=("text", "json"), help="of the log on standard error")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        help="debug also logs names and addresses",
    )
