"""`htvpn server proxy-config`: the configuration of a reverse proxy before one or several exits."""

from __future__ import annotations

import ipaddress
import re
import sys
from argparse import Namespace
from pathlib import Path
from urllib.parse import urlsplit

from halftunnel_vpn.cli import proxy_programs, server_directory
from halftunnel_vpn.cli.proxy_programs import Domain, Front, SecretPath
from halftunnel_vpn.cli.server_clients import write_new
from halftunnel_vpn.cli.server_replicas import directories_of
from halftunnel_vpn.config import net
from halftunnel_vpn.config.schema import Rejected
from halftunnel_vpn.config.server import ListenerConfig, ServerConfig
from halftunnel_vpn.errors import ConfigError, UsageError

DIRECTIONS = ("upstream", "downstream")

_SAFE_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
# What all three programs compare byte by byte and none of them quotes, decodes or normalizes.

_SAFE_FILE = re.compile(r"[A-Za-z0-9_./+:@-]+")


def run(options: Namespace) -> int:
    """Write the configuration to a new file or standard output."""
    directories = directories_of(options)
    configs = {directory: _read(directory) for directory in directories}
    front = Front(
        sites=tuple(_sites(configs)),
        certificates=_certificates(options),
        web_server=_web_server(options, configs),
    )
    text = proxy_programs.RENDERERS[options.program](front)
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_new(options.output, text)
    for directory, config in configs.items():
        if not config.listen.trusted_proxies:
            print(
                f"htvpn: {directory}: [listen] trusted_proxies is empty, so all clients share the limits of "
                'one visitor; set it to the address of the proxy, such as ["127.0.0.0/8", "::1/128"] ; '
                "'htvpn server init --behind-proxy' writes that for a new exit",
                file=sys.stderr,
            )
    return 0


def _read(directory: Path) -> ServerConfig:
    with server_directory.open_directory(directory) as opened:
        return server_directory.read_configuration(opened)


def _sites(configs: dict[Path, ServerConfig]) -> list[Domain]:
    """Return every domain with its routes. Raises ConfigError for what one proxy cannot tell apart."""
    routes: dict[tuple[str, int], dict[str, SecretPath]] = {}
    ports: dict[str, Path] = {}
    for number, (directory, config) in enumerate(configs.items(), 1):
        for direction in DIRECTIONS:
            listener: ListenerConfig = getattr(config.listen, direction)
            backend = _backend(directory, direction, listener)
            if ports.setdefault(backend, directory) != directory:
                raise ConfigError(
                    f"{ports[backend]} and {directory} both listen on {backend}; give each exit its own ports"
                )
            route = SecretPath(f"exit{number}_{direction}", directory, listener.path, backend)
            for url in getattr(config.public, direction).urls:
                place = _domain(directory, direction, url)
                known = routes.setdefault(place, {}).setdefault(route.path, route)
                if known.backend != route.backend:
                    raise ConfigError(
                        f"{known.directory} and {directory} have one path on {place[0]}; a path must name "
                        "one exit, so change [listen] path and [public] urls of one of them"
                    )
    if len(routes) > proxy_programs.MAX_DOMAINS:
        raise ConfigError(
            f"these exits have {len(routes)} domains, one proxy serves at most {proxy_programs.MAX_DOMAINS}; "
            "run another proxy for some of the exits"
        )
    return [Domain(host, port, tuple(found.values())) for (host, port), found in routes.items()]


def _backend(directory: Path, direction: str, listener: ListenerConfig) -> str:
    """Return where the proxy reaches a listener, as ADDRESS:PORT."""
    where = f"{directory}: [listen.{direction}]"
    if listener.tls:
        raise ConfigError(
            f"{where} has tls = true, but the proxy does TLS; write tls = false and listen on loopback, or "
            "make the exit by 'htvpn server init --behind-proxy'"
        )
    if not _SAFE_PATH.fullmatch(listener.path):
        raise ConfigError(
            f'{where} path: proxies may read this one in different ways; use letters, digits, "-", "_", "." '
            'and "~" between slashes'
        )
    address = ipaddress.ip_address(listener.address)
    if address.is_unspecified:
        # Both wildcards of the exit accept IPv4.
        address = ipaddress.ip_address("127.0.0.1")
    return f"[{address}]:{listener.port}" if address.version == 6 else f"{address}:{listener.port}"


def _domain(directory: Path, direction: str, url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "wss":
        raise ConfigError(
            f"{directory}: [public.{direction}] urls: the proxy serves wss:// URLs alone; "
            "replace or remove the one that begins with ws://"
        )
    return parts.hostname or "", parts.port or 443


def _certificates(options: Namespace) -> str | None:
    if options.certificates is None:
        return proxy_programs.DEFAULT_CERTIFICATES[options.program]
    place = str(Path(options.certificates).absolute())
    if not _SAFE_FILE.fullmatch(place):
        raise UsageError(f"--certificates {place}: use a directory without spaces and quotes in its name")
    return place


def _web_server(options: Namespace, configs: dict[Path, ServerConfig]) -> str | None:
    """Return the web server for strangers, as HOST:PORT: the given one, or that of the first exit."""
    found = next((one.server.fallback for one in configs.values() if one.server.fallback), None)
    if options.site is not None:
        try:
            found = net.web_server(options.site)
        except Rejected as rejected:
            raise UsageError(f"--site {options.site}: must be {rejected.allowed}") from None
    if found is None:
        return None
    host, port = found
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
