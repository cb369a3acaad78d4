"""The arguments of `htvpn server`."""

from __future__ import annotations

from halftunnel_vpn.cli import entries
from halftunnel_vpn.cli.parser import Commands, Parser, add_directory, add_process_options, command, path
from halftunnel_vpn.config import DEFAULT_EXIT_DIRECTORY


def add_server(commands: Commands[Parser]) -> None:
    server = commands.add_parser("server", help="run an exit, and admit clients to it")
    actions = server.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_init(actions)
    _add_clients(actions)
    _add_administration(actions)
    _add_check(actions)
    _add_certificate(actions)
    _add_proxy_config(actions)
    run = command(
        actions, "run", "run the exit in the foreground, logging on standard error", entries.server_run
    )
    add_directory(run)
    add_process_options(run)


def _add_init(actions: Commands[Parser]) -> None:
    init = command(actions, "init", "make the keys and the configuration of an exit", entries.server_init)
    add_directory(init)
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
        "--certificate", metavar="FILE", type=path, help="TLS certificate chain (default: one of our own)"
    )
    init.add_argument("--certificate-key", metavar="FILE", type=path, help="private key of that certificate")
    init.add_argument(
        "--behind-proxy",
        action="store_true",
        help="listen without TLS: a reverse proxy on this machine terminates it",
    )


def _add_clients(actions: Commands[Parser]) -> None:
    add = command(actions, "add-client", "admit a client, and write its profile", entries.add_client)
    add.add_argument("name", metavar="NAME")
    _add_directories(add)
    add.add_argument(
        "--output",
        metavar="FILE",
        type=path,
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

    invite = command(actions, "invite", "print a link with which a client makes its profile", entries.invite)
    invite.add_argument("name", metavar="NAME")
    _add_directories(invite)
    invite.add_argument("--expires", metavar="TIME", default="1h", help="such as 30m, 1h or 2d (%(default)s)")
    invite.add_argument("--once", action="store_true", help="it admits one client; this is always so")
    invite.add_argument("--qr", action="store_true", help="also show its QR code")
    invite.add_argument(
        "--output", metavar="FILE", type=path, help="also write the code to a new .png or .svg"
    )

    remove = command(actions, "remove-client", "remove a client", entries.remove_client)
    remove.add_argument("name", metavar="NAME")
    add_directory(remove)


def _add_check(actions: Commands[Parser]) -> None:
    check = command(
        actions, "check", "check an exit: files, ports, names, certificates, firewall", entries.server_check
    )
    check.add_argument("--files", action="store_true", help="only whether its files can be read")
    check.add_argument("--json", action="store_true", help="print one JSON array")
    add_directory(check)


def _add_certificate(actions: Commands[Parser]) -> None:
    certificate = command(
        actions,
        "certificate",
        "install a renewed certificate where the exit reads it",
        entries.server_certificate,
    )
    certificate.add_argument(
        "--certificate", metavar="FILE", type=path, required=True, help="certificate chain, PEM"
    )
    certificate.add_argument(
        "--certificate-key", metavar="FILE", type=path, required=True, help="its private key, PEM"
    )
    certificate.add_argument(
        "--direction",
        choices=("upstream", "downstream"),
        action="append",
        help="the listener that presents it (default: both)",
    )
    add_directory(certificate)


def _add_administration(actions: Commands[Parser]) -> None:
    for name, meaning, run in (
        ("status", "show how a running exit does", entries.exit_status),
        ("clients", "show the clients of a running exit, and what they use", entries.exit_clients),
        ("sessions", "show the sessions of a running exit", entries.exit_sessions),
    ):
        shown = command(actions, name, meaning, run)
        add_directory(shown)
        shown.add_argument("--json", action="store_true", help="as one JSON object (docs/OPERATE.md)")
        shown.add_argument("--watch", action="store_true", help="repeat every second until interrupted")

    web = command(
        actions, "web", "print an address that opens the web page of a running exit", entries.exit_web
    )
    add_directory(web)
    web.add_argument(
        "--port",
        metavar="PORT",
        type=int,
        help="the port of `ssh -L` on your machine (default: that of the page, or 8750)",
    )

    client = command(actions, "client", "change what a client may do", entries.exit_client)
    client.add_argument("name", metavar="NAME")
    client.add_argument(
        "action",
        choices=("disable", "enable", "expires", "quota", "rate", "rotate-key"),
        metavar="ACTION",
        help="disable, enable, expires DATE, quota 100GB/month, rate 20mbit, or rotate-key; "
        "never instead of a value removes a limit",
    )
    client.add_argument("value", nargs="?", metavar="VALUE")
    add_directory(client)
    client.add_argument(
        "--output",
        metavar="FILE",
        type=path,
        help="with rotate-key: a new file for the new profile, mode 0600 (default: standard output)",
    )


def _add_proxy_config(actions: Commands[Parser]) -> None:
    proxy = command(
        actions,
        "proxy-config",
        "write the configuration of a reverse proxy before one or several exits",
        entries.proxy_config,
    )
    proxy.add_argument(
        "program", choices=("haproxy", "nginx", "caddy"), help="the program that reads the configuration"
    )
    _add_directories(proxy)
    proxy.add_argument(
        "--site",
        metavar="URL",
        help="web server for all other requests, http://HOST:PORT "
        "(default: [server] fallback of the first exit that has one, or else a 404)",
    )
    proxy.add_argument(
        "--certificates",
        metavar="DIR",
        type=path,
        help="where certificates are: DIR/DOMAIN.pem for HAProxy (/etc/haproxy/certs), "
        "DIR/DOMAIN/fullchain.pem and privkey.pem for nginx (/etc/letsencrypt/live) and for Caddy "
        "(which obtains its own)",
    )
    proxy.add_argument(
        "--output",
        metavar="FILE",
        type=path,
        help="a new file, mode 0600, since it contains secret paths (default: standard output)",
    )


def _add_directories(parser: Parser) -> None:
    parser.add_argument(
        "--dir",
        metavar="DIR",
        type=path,
        action="append",
        help=f"an exit's directory; repeat it for several exits ({DEFAULT_EXIT_DIRECTORY})",
    )
