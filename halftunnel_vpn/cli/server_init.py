"""`htvpn server init`: the keys, certificates and configuration of a new exit."""

from __future__ import annotations

import ipaddress
import re
import secrets
import shlex
import socket
import sys
import threading
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from halftunnel_vpn.cli import daemon_process, server_directory
from halftunnel_vpn.cli.server_certificate import check_pair
from halftunnel_vpn.config import DEFAULT_EXIT_DIRECTORY, net, writing
from halftunnel_vpn.config.clients import CLIENTS
from halftunnel_vpn.config.schema import Check, Rejected, T
from halftunnel_vpn.config.server import parse_server
from halftunnel_vpn.control.owned_directory import OwnedDirectory
from halftunnel_vpn.control.text_file import read_text
from halftunnel_vpn.errors import ConfigError, UsageError
from halftunnel_vpn.protocol.certificates import draw_shape, make_authority, make_server_certificate
from halftunnel_vpn.protocol.keys import KeyPair, encode_key

VALIDITY = timedelta(days=3650)
"""The minimum validity of our own certificates."""

MAX_EXTRA = 3650
"""The most days that are added to the validity at random."""

MAX_AGE = 180 * 86400
"""The most seconds by which the validity begins earlier, at random."""

LOOKUP_TIMEOUT = 3.0
"""Seconds that `init` waits for the addresses of the hosts, to warn if both directions share one."""

_RESERVED = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid)\.?$")
# Names without a real address (RFC 2606, RFC 6761).

CLOCK_SLACK = timedelta(days=2)
"""How far in the past the validity begins, because clocks of clients may be wrong."""

SECRET_PATH_BYTES = 18
"""Random bytes in the secret path of the URLs."""

DEFAULT_ADDRESS = "::"
"""All addresses of the machine, IPv4 and IPv6."""

DEFAULT_PORTS = {"wss": 443, "ws": 80}

HEADER = """\
# The exit's configuration, made by 'htvpn server init'. Names of files are relative to this file.
# 'htvpn config example server' prints every key with its explanation. Reload the exit after a change.

"""


class Road(NamedTuple):
    """One direction as requested: complete URLs, and where to listen for its legs."""

    urls: list[str]
    hosts: list[str]
    path: str
    listen: net.Endpoint
    tls: bool


def run(options: Namespace) -> int:
    """Create the directory of an exit. Nothing that exists is overwritten."""
    directory = Path(options.dir)
    roads = {
        name: _road(name, getattr(options, name), getattr(options, f"listen_{name}"), options.behind_proxy)
        for name in ("upstream", "downstream")
    }
    certificate = _given_certificate(options)
    for network in options.allow_egress:
        _checked(net.network, network, "--allow-egress")
    for resolver in options.dns:
        _checked(net.address, resolver, "--dns")
    made, names = ({}, dict.fromkeys(roads, certificate)) if certificate else _make_certificates(roads)
    key = KeyPair(secrets.token_bytes(32))
    text = HEADER + writing.render(_configuration(options, roads, names))
    parse_server(text)
    contents: dict[str, str | bytes] = {
        server_directory.PRIVATE_KEY: encode_key(key.private) + "\n",
        **made,
        # Write this one last: if it exists, all files that it names exist too.
        server_directory.CONFIGURATION: text,
    }
    _write(directory, contents)
    print(f"The exit is in {directory}; its public key is {encode_key(key.public)}.")
    _print_next(directory)
    print("Every new exit shows strangers the same page: set [server] site or fallback in server.toml.")
    _warn_of_common_addresses(roads)
    return 0


def _print_next(directory: Path) -> None:
    """Print how to run the exit and to admit a client."""
    if str(directory) == DEFAULT_EXIT_DIRECTORY and daemon_process.SYSTEMD.is_dir():
        named, run = "", "systemctl enable --now halftunnel-server"
    else:
        named = f" --dir {shlex.quote(str(directory))}"
        run = f"htvpn server run{named}"
    print(f"Run the exit:    {run}")
    print(f"Invite a client: htvpn server invite NAME{named}")
    print(f"or by a file:    htvpn server add-client NAME --output NAME.toml{named}")


def _write(path: Path, contents: dict[str, str | bytes]) -> None:
    with OwnedDirectory.make(path) as directory:
        for name in contents:
            if directory.exists(name):
                raise ConfigError(
                    f"{path / name} exists already, and nothing is overwritten; choose another directory"
                )
        directory.subdirectory(CLIENTS, make=True).close()
        written: list[str] = []
        try:
            for name, content in contents.items():
                directory.write_new(name, content)
                written.append(name)
        except BaseException:
            # An incomplete exit is useless and would prevent the next attempt.
            for name in written:
                directory.remove(name)
            raise


def _road(name: str, urls: Sequence[str], listen: str | None, behind_proxy: bool) -> Road:
    parts = [urlsplit(_checked(net.websocket_url, url, f"--{name}")) for url in urls]
    paths = {part.path for part in parts} - {"", "/"}
    if len(paths) > 1:
        raise UsageError(f"the URLs of --{name} must share one path, or have none; then a secret one is made")
    schemes = {part.scheme for part in parts}
    if len(schemes) > 1 and not behind_proxy:
        raise UsageError(f"the URLs of --{name} must all be ws:// or all be wss://, or add --behind-proxy")
    path = paths.pop() if paths else "/" + secrets.token_urlsafe(SECRET_PATH_BYTES)
    first = parts[0]
    if listen is not None:
        endpoint = _checked(net.endpoint, listen, f"--listen-{name}")
    elif behind_proxy:
        raise UsageError(f"--behind-proxy needs an address to listen on: --listen-{name} 127.0.0.1:PORT")
    else:
        endpoint = net.Endpoint(DEFAULT_ADDRESS, first.port or DEFAULT_PORTS[first.scheme])
    return Road(
        urls=[urlunsplit(part._replace(path=path)) for part in parts],
        hosts=list(dict.fromkeys(part.hostname or "" for part in parts)),
        path=path,
        listen=endpoint,
        tls=schemes == {"wss"} and not behind_proxy,
    )


class CertificateNames(NamedTuple):
    """Names of files in the exit's directory, or absolute paths. Profiles pin ``authority``."""

    certificate: str
    key: str
    authority: str


def _given_certificate(options: Namespace) -> CertificateNames | None:
    if options.certificate is None and options.certificate_key is None:
        return None
    if options.certificate is None or options.certificate_key is None:
        raise UsageError("--certificate and --certificate-key belong together; give both")
    chain, key = Path(options.certificate).resolve(), Path(options.certificate_key).resolve()
    for path in (chain, key):
        read_text(path, missing=f"there is no file {path}")
    check_pair(chain, key)
    return CertificateNames(str(chain), str(key), "")


def _make_certificates(roads: dict[str, Road]) -> tuple[dict[str, bytes], dict[str, CertificateNames]]:
    """Return the files to write, and the names of each direction's own files.

    Two directions get two authorities. Their keys, dates and shapes are chosen independently, so that an
    observer of both certificates cannot see that they belong together, even on one port.
    """
    made: dict[str, bytes] = {}
    found: dict[str, CertificateNames] = {}
    shared = _need_one_certificate(*roads.values())
    for name, road in roads.items():
        if not road.tls:
            continue
        stem = "server" if shared else name
        found[name] = CertificateNames(f"{stem}.pem", f"{stem}.key", f"{stem}-ca.pem")
        if f"{stem}.pem" in made:
            continue
        hosts = road.hosts
        if shared:
            hosts = list(dict.fromkeys(host for one in roads.values() for host in one.hosts))
        # The authority and the server's certificate have different shapes and the dates of an installation.
        validity = _draw_validity()
        authority = make_authority(hosts[0], shape=draw_shape(secrets.randbelow), **validity)
        server = make_server_certificate(authority, hosts, shape=draw_shape(secrets.randbelow), **validity)
        # The authority's private key is not stored, so an attacker who takes the exit can sign nothing.
        made[f"{stem}-ca.pem"] = authority.certificate
        made[f"{stem}.pem"], made[f"{stem}.key"] = server.certificate, server.private_key
    return made, found


def _need_one_certificate(upstream: Road, downstream: Road) -> bool:
    """Return whether both directions share a port that cannot select the certificate by name (SNI)."""
    if upstream.listen != downstream.listen:
        return False
    # A client that connects to an address sends no name.
    both_have_addresses = all(any(map(_is_address, road.hosts)) for road in (upstream, downstream))
    return both_have_addresses or bool(set(upstream.hosts) & set(downstream.hosts))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _draw_validity() -> dict[str, datetime]:
    begin = datetime.now(UTC) - CLOCK_SLACK - timedelta(seconds=secrets.randbelow(MAX_AGE))
    return {"not_before": begin, "not_after": begin + VALIDITY + timedelta(days=secrets.randbelow(MAX_EXTRA))}


def _warn_of_common_addresses(roads: dict[str, Road]) -> None:
    """Warn if the hosts of both directions have a common address: an observer of it sees both."""
    found: dict[str, frozenset[str]] = {}

    def look_up() -> None:
        for name, road in roads.items():
            hosts = [host for host in road.hosts if not _RESERVED.search(host)]
            found[name] = frozenset(address for host in hosts for address in _addresses(host))

    # A resolver that does not answer must not delay the installation.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(LOOKUP_TIMEOUT)
    common = found.get("upstream", frozenset()) & found.get("downstream", frozenset())
    if common:
        print(
            f"Warning: the hosts of both directions have a common address ({', '.join(sorted(common))}), so "
            "an observer of it sees both directions; use two addresses, or a CDN for one of them.",
            file=sys.stderr,
        )


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for _, _, _, _, address in found]


def _configuration(
    options: Namespace, roads: dict[str, Road], certificates: dict[str, CertificateNames]
) -> dict[str, Any]:
    listen: dict[str, Any] = {}
    public: dict[str, Any] = {}
    if options.behind_proxy:
        listen["trusted_proxies"] = ["127.0.0.0/8", "::1/128"]
    for name, road in roads.items():
        listen[name] = {
            "address": road.listen.host,
            "port": road.listen.port,
            "path": road.path,
            "tls": road.tls,
        }
        public[name] = {"urls": road.urls}
        if road.tls:
            own = certificates[name]
            listen[name] |= {"certificate": own.certificate, "certificate_key": own.key}
            public[name]["ca"] = own.authority
    return {
        "server": {"private_key": server_directory.PRIVATE_KEY},
        "listen": listen,
        "public": public,
        "egress": {"allow": options.allow_egress},
        "dns": {"resolvers": options.dns},
    }


def _checked(check: Check[T], value: str, option: str) -> T:
    try:
        return check(value)
    except Rejected as rejected:
        raise UsageError(f"{option} {value}: must be {rejected.allowed}") from None
