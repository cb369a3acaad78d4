"""The contract of the command line, as an argparse parser."""

from __future__ import annotations

import argparse

from halftunnel_vpn import __build__
from halftunnel_vpn.cli import entries
from halftunnel_vpn.cli.parser import (
    Commands,
    InterleavedParser,
    Parser,
    add_process_options,
    add_socket,
    command,
    minutes,
    natural,
    path,
)


def build_parser(first: str | None = None) -> Parser:
    """Return the parser of `htvpn`. The function of the chosen command is ``options.run``.

    ``first`` is the first word of the command line: with it, other commands may be missing.
    """
    parser = Parser(
        prog="htvpn",
        description="A full-tunnel VPN whose two directions never share a network path.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not connected.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"htvpn {__build__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    if first == "up":  # most of its time would go into the arguments of all the others
        _add_up(commands)
        return parser
    _add_server(commands)
    _add_up(commands)
    _add_exits(commands)
    down = command(commands, "down", "disconnect and restore the host", entries.down)
    add_socket(down)

    status = command(commands, "status", "show the state of the tunnel", entries.status)
    status.add_argument("--json", action="store_true", help="print one JSON object (docs/CONTROL.md)")
    status.add_argument("--watch", action="store_true", help="repeat every second until interrupted")
    add_socket(status)

    top = command(commands, "top", "watch paths, rates, flows by program and log in a terminal", entries.top)
    add_socket(top)

    _add_proxy(commands)

    healthcheck = command(
        commands, "healthcheck", "exit code 0 when healthy, for containers", entries.healthcheck
    )
    healthcheck.add_argument("--dir", metavar="DIR", type=path, help="ask the exit of this directory")
    healthcheck.add_argument(
        "--socket", metavar="PATH", type=path, help="ask the client at this control socket"
    )
    _add_daemon_commands(commands)
    _add_profile(commands)
    _add_join(commands)
    _add_setup(commands, parser)

    _add_audit(commands)
    _add_diagnosis(commands)
    about = command(commands, "help", "explain a command", entries.help)
    about.add_argument("words", nargs="*", metavar="COMMAND", help="such as: server init")
    about.set_defaults(parser=parser)
    command(commands, "version", "print the version", entries.version)
    demo = command(commands, "demo", "try a whole tunnel in namespaces on this host", entries.demo)
    demo.add_argument("--keep", action="store_true", help="leave it up afterwards and print how to enter")
    demo.add_argument("--remove", action="store_true", help="only remove what an earlier --keep has left")
    return parser


def _add_server(commands: Commands[Parser]) -> None:
    from halftunnel_vpn.cli.server_arguments import add_server

    add_server(commands)


def _add_up(commands: Commands[Parser]) -> None:
    up = command(commands, "up", "connect this host through a profile", entries.up)
    up.add_argument(
        "profile",
        nargs="?",
        metavar="PROFILE",
        help="a name in /etc/halftunnel/profiles, or a file; not needed where there is only one",
    )
    _add_choice(up)
    up.add_argument("--foreground", action="store_true", help="do not use the daemon; log on standard error")
    add_process_options(up)
    up.add_argument(
        "--socket",
        metavar="PATH",
        type=path,
        help="control socket (default: the daemon's, or as the profile says)",
    )


def _add_exits(commands: Commands[Parser]) -> None:
    exits = command(commands, "exits", "measure the way to each exit of a profile", entries.exits)
    exits.add_argument(
        "profile", nargs="?", metavar="PROFILE", help="default: the one that is up, or the active one"
    )
    exits.add_argument("--json", action="store_true", help="print one JSON array (docs/CONTROL.md)")
    add_socket(exits)
    switch = command(commands, "switch", "use another exit of the profile that is up", entries.switch)
    switch.add_argument(
        "exit", nargs="?", metavar="EXIT", help="this one alone; without it, priority decides again"
    )
    switch.add_argument("--fastest", action="store_true", help="the one with the lowest round trip")
    add_socket(switch)


def _add_choice(up: Parser) -> None:
    up.add_argument("--exit", metavar="EXIT", help="use this exit of the profile, and no other")
    up.add_argument(
        "--fastest",
        action="store_true",
        help="use the exit with the lowest round trip (default: by priority)",
    )


def _add_proxy(commands: Commands[Parser]) -> None:
    proxy = command(
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
        "--users", metavar="FILE", type=path, help="ask for a user and a password: NAME:PASSWORD, one a line"
    )
    add_process_options(proxy)


def _add_daemon_commands(commands: Commands[Parser]) -> None:
    reconnect = command(commands, "reconnect", "reopen every connection; flows stay", entries.reconnect)
    add_socket(reconnect)

    reload = command(commands, "reload", "make the daemon read its profile again", entries.reload)
    add_socket(reload)

    logs = command(commands, "logs", "show the daemon's last log lines", entries.logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    logs.add_argument("-n", "--lines", type=natural, default=1000, metavar="N", help="at most the last N")
    logs.add_argument("--json", action="store_true", help="one JSON object per line")
    add_socket(logs)

    portal = command(commands, "portal", "open a network's login page for a while", entries.portal)
    portal.add_argument(
        "--minutes", type=minutes, default=5.0, metavar="N", help="0 to 60; 0 closes it (default: 5)"
    )
    add_socket(portal)

    for name, programs, meaning in (
        ("exclude", "excluded", "run a command outside the tunnel"),
        (
            "only",
            "only",
            'run a command inside the tunnel, where programs = "only"',
        ),
    ):
        listed = command(commands, name, meaning, entries.programs)
        listed.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run")
        listed.set_defaults(list=programs, command=name)
        add_socket(listed)

    repair = command(commands, "repair", "undo what a killed client left on this host", entries.repair)
    repair.add_argument("--lift", action="store_true", help="also lift a kill switch that was left")
    add_socket(repair)


def _add_audit(commands: Commands[Parser]) -> None:
    audit = command(commands, "audit", "score what the paths show to those who watch them", entries.audit)
    audit.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=path,
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
    audit.add_argument(
        "--output",
        metavar="FILE",
        type=path,
        help="of 'record': wait for the end, and move the log to this new file, mode 0600 (as root)",
    )
    add_socket(audit)
    audit.add_argument("--json", action="store_true", help="as one JSON object")
    audit.add_argument("--png", metavar="FILE", type=path, help="also draw what each path shows")
    audit.add_argument(
        "--mode", choices=("off", "split", "strong"), help="whose promise a capture is to keep"
    )
    audit.add_argument(
        "--exit",
        metavar="ADDR[:PORT]",
        nargs="+",
        action="extend",
        help="of a capture: only connections to these (default: all)",
    )


def _add_profile(commands: Commands[Parser]) -> None:
    profile = commands.add_parser("profile", help="manage the profiles of this host")
    actions = profile.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, meaning, run in (
        ("list", "list the profiles; * marks the active one", entries.profile_list),
        ("add", "check a profile and store it", entries.profile_add),
        ("add-exit", "add the exit of another profile to a profile", entries.profile_add_exit),
        ("remove", "remove a profile and its key", entries.profile_remove),
        ("use", "make a profile the active one", entries.profile_use),
    ):
        action = command(actions, name, meaning, run, kind=InterleavedParser if name == "add" else Parser)
        if name == "add":
            action.add_argument(
                "name", nargs="?", metavar="NAME", help="what to call it (default: the name in the file)"
            )
            action.add_argument("file", metavar="FILE", type=path, help="- for standard input")
            action.add_argument("--replace", action="store_true", help="replace a profile of that name")
        elif name != "list":
            action.add_argument("name", metavar="NAME")
        if name == "add-exit":
            action.add_argument(
                "file", metavar="FILE", type=path, help="a profile of the new exit; - for standard input"
            )
            action.add_argument("--exit", metavar="NEW", help="its name (default: that of its profile)")
        action.add_argument(
            "--dir", metavar="DIR", type=path, help="their directory (default: /etc/halftunnel/profiles)"
        )
        add_socket(action)


def _add_join(commands: Commands[Parser]) -> None:
    join = command(commands, "join", "make a profile from an invitation, at this host", entries.join)
    join.add_argument(
        "link",
        nargs="?",
        metavar="LINK",
        help="htvpn://...; - for standard input; without it you are asked. Other users can see arguments",
    )
    join.add_argument(
        "--name", metavar="NAME", help="name of the profile or exit (default: as the exit says)"
    )
    join.add_argument("--add-to", metavar="PROFILE", help="make it a further exit of this profile")
    join.add_argument("--dir", metavar="DIR", type=path, help="profiles (default: /etc/halftunnel/profiles)")
    add_socket(join)


def _add_setup(commands: Commands[Parser], whole: Parser) -> None:
    install = command(
        commands,
        "install",
        "install the units of this program, as root (proxy: as its user)",
        entries.install,
    )
    install.add_argument("role", choices=("client", "server", "proxy"))
    uninstall = command(
        commands, "uninstall", "remove the units, profiles, keys and state", entries.uninstall
    )
    uninstall.add_argument("--keep-configuration", action="store_true", help="keep profiles and keys")

    config = commands.add_parser("config", help="what a configuration file may say")
    actions = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, meaning, run in (
        ("example", "print a configuration file with every key and its explanation", entries.config_example),
        ("schema", "print the JSON Schema of a configuration file, for editors", entries.config_schema),
    ):
        command(actions, name, meaning, run).add_argument("role", choices=("client", "server"))

    check = command(
        actions, "check", "check a profile or a server.toml, and name every mistake", entries.config_check
    )
    check.add_argument("file", metavar="FILE", type=path, help="- for standard input")
    check.add_argument("--role", choices=("client", "server"), help="default: what its tables say")

    completion = command(commands, "completion", "print the completion script of a shell", entries.completion)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    # Without help it is not listed: only completion scripts call it.
    complete = commands.add_parser("__complete")
    complete.add_argument("words", nargs=argparse.REMAINDER)
    complete.set_defaults(run=entries.complete, parser=whole)


def _length(text: str) -> float:
    from halftunnel_vpn.config.schema import Rejected
    from halftunnel_vpn.config.values import duration

    try:
        return duration(1, 86400)(text)
    except Rejected as rejected:
        raise argparse.ArgumentTypeError(f"must be {rejected.allowed}") from None


def _add_diagnosis(commands: Commands[Parser]) -> None:
    check = command(commands, "check", "find out what keeps this host from its exit", entries.check)
    check.add_argument("--json", action="store_true", help="print one JSON array")
    check.add_argument(
        "--speed", action="store_true", help="also measure the tunnel to the exit, for six seconds"
    )
    report = command(
        commands, "bugreport", "write an archive for a developer, without keys and names", entries.bugreport
    )
    report.add_argument("--output", metavar="FILE", type=path, help="a new file (default: here, by date)")
    report.set_defaults(speed=False)
    for diagnosis in (check, report):
        diagnosis.add_argument("profile", nargs="?", metavar="PROFILE", help="as for `htvpn up`")
        add_socket(diagnosis)
