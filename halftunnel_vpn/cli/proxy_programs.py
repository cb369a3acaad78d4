"""The configuration files of HAProxy, nginx and Caddy before exits: pure text, no files.

A request whose path is the secret path of an exit goes to that exit, so both halves of a session reach the
same exit although nothing on the two paths is equal. Everything else goes to a web server, or gets a 404.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

IDLE_SECONDS: Final = 75
"""Seconds without a byte after which a proxy cuts a leg: more than the longest keepalive interval, 60 s."""

CONNECT_SECONDS: Final = 5
"""Seconds in which an exit must accept; it is on the same machine, or beside it."""

MAX_DOMAINS: Final = 24
"""The most domains of all exits behind one proxy: HAProxy reads at most 64 words in a line."""

HEAD_SECONDS: Final = 10
"""Seconds in which a visitor must have sent the head of a request."""

DEFAULT_CERTIFICATES: Final[Mapping[str, str | None]] = {
    "haproxy": "/etc/haproxy/certs",
    "nginx": "/etc/letsencrypt/live",
    "caddy": None,
}
"""Where certificates are unless the command line names another directory. Caddy obtains its own."""


@dataclass(frozen=True, slots=True)
class SecretPath:
    """One secret path: a name for it, the exit's directory, the path, and ADDRESS:PORT of its listener."""

    name: str
    directory: Path
    path: str
    backend: str


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain on one port, with the secret paths that it serves."""

    host: str
    port: int
    routes: tuple[SecretPath, ...]

    @property
    def in_url(self) -> str:
        """The host as a URL has it: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True)
class Front:
    """What the proxy serves. ``certificates`` is a directory; ``web_server`` is HOST:PORT, None for a 404."""

    sites: tuple[Domain, ...]
    certificates: str | None
    web_server: str | None


_HEADER: Final = """\
# {title}, made by 'htvpn server proxy-config'. It contains secret paths: keep it readable by root alone,
# and write no request lines into access logs. Run the command again when an exit is added.
"""


def haproxy(front: Front) -> str:
    """Return a complete haproxy.cfg for HAProxy 2.4 or later."""
    lines = [
        _HEADER.format(title="HAProxy before Half-Tunnel exits"),
        f"# {front.certificates}/DOMAIN.pem holds the certificate chain of a domain, then its private key.",
        "",
        "defaults",
        "    mode http",
        f"    timeout connect {CONNECT_SECONDS}s",
        f"    timeout http-request {HEAD_SECONDS}s",
        f"    timeout client {IDLE_SECONDS}s",
        f"    timeout server {IDLE_SECONDS}s",
        "    # WebSockets: silence of one direction is normal; keepalives come within 60 s.",
        f"    timeout tunnel {IDLE_SECONDS}s",
        "    # A visitor that has sent its end and reads nothing more.",
        f"    timeout client-fin {HEAD_SECONDS}s",
    ]
    for port in dict.fromkeys(site.port for site in front.sites):
        sites = [site for site in front.sites if site.port == port]
        files = " ".join(f"crt {front.certificates}/{site.host}.pem" for site in sites)
        lines += [
            "",
            f"frontend port_{port}",
            "    # The name that the client asks for selects the certificate; the first is the default.",
            f"    bind :::{port} v4v6 ssl {files} alpn h2,http/1.1 ssl-min-ver TLSv1.2",
            "    http-request set-header X-Forwarded-For %[src]",
        ]
        for route in _routes(sites):
            lines += [f"    use_backend {route.name} if {{ path -m str {route.path} }}"]
        lines += ["    default_backend strangers"]
    for route in _routes(front.sites):
        lines += ["", f"# {route.directory}", f"backend {route.name}", f"    server exit {route.backend}"]
    rest = f"server web {front.web_server}" if front.web_server else "http-request deny deny_status 404"
    lines += ["", "backend strangers", f"    {rest}"]
    return "\n".join(lines) + "\n"


def nginx(front: Front) -> str:
    """Return server blocks for the http section of nginx, such as a file in /etc/nginx/conf.d."""
    lines = [
        _HEADER.format(title="nginx before Half-Tunnel exits"),
        f"# {front.certificates}/DOMAIN/fullchain.pem and privkey.pem are those of certbot.",
    ]
    for site in front.sites:
        lines += [
            "",
            "server {",
            f"    listen {site.port} ssl;",
            f"    listen [::]:{site.port} ssl;",
            f"    server_name {site.in_url};",
            f"    ssl_certificate     {front.certificates}/{site.host}/fullchain.pem;",
            f"    ssl_certificate_key {front.certificates}/{site.host}/privkey.pem;",
            "    ssl_protocols TLSv1.2 TLSv1.3;",
            f"    client_header_timeout {HEAD_SECONDS}s;",
        ]
        for route in site.routes:
            lines += [
                "",
                f"    # {route.directory}",
                f"    location = {route.path} {{",
                "        access_log off;",
                f"        proxy_pass http://{route.backend};",
                "        proxy_http_version 1.1;",
                "        proxy_set_header Upgrade $http_upgrade;",
                '        proxy_set_header Connection "upgrade";',
                "        proxy_set_header Host $host;",
                "        proxy_set_header X-Forwarded-For $remote_addr;",
                f"        proxy_connect_timeout {CONNECT_SECONDS}s;",
                "        # WebSockets: silence of one direction is normal; keepalives come within 60 s.",
                f"        proxy_read_timeout {IDLE_SECONDS}s;",
                f"        proxy_send_timeout {IDLE_SECONDS}s;",
                "    }",
            ]
        lines += ["", "    location / {"]
        if front.web_server:
            lines += [
                f"        proxy_pass http://{front.web_server};",
                "        proxy_set_header Host $host;",
                "        proxy_set_header X-Forwarded-For $remote_addr;",
            ]
        else:
            lines += ["        return 404;"]
        lines += ["    }", "}"]
    return "\n".join(lines) + "\n"


def caddy(front: Front) -> str:
    """Return a Caddyfile. Caddy sets X-Forwarded-For and never cuts a WebSocket that is idle."""
    lines = [_HEADER.format(title="Caddy before Half-Tunnel exits")]
    if front.certificates:
        lines += [f"# {front.certificates}/DOMAIN/fullchain.pem and privkey.pem are those of certbot."]
    lines += ["{", "    servers {", "        timeouts {", f"            read_header {HEAD_SECONDS}s"]
    lines += ["        }", "    }", "}"]
    for site in front.sites:
        lines += ["", f"https://{site.in_url}:{site.port} {{"]
        if front.certificates:
            place = f"{front.certificates}/{site.host}"
            lines += [f"    tls {place}/fullchain.pem {place}/privkey.pem"]
        for route in site.routes:
            lines += [
                f"    # {route.directory}",
                f"    handle {route.path} {{",
                f"        reverse_proxy {route.backend} {{",
                "            transport http {",
                f"                dial_timeout {CONNECT_SECONDS}s",
                "            }",
                "        }",
                "    }",
            ]
        rest = f"reverse_proxy {front.web_server}" if front.web_server else "respond 404"
        lines += ["    handle {", f"        {rest}", "    }", "}"]
    return "\n".join(lines) + "\n"


RENDERERS: Final[Mapping[str, Callable[[Front], str]]] = {"haproxy": haproxy, "nginx": nginx, "caddy": caddy}
"""The programs that can be configured."""


def _routes(sites: tuple[Domain, ...] | list[Domain]) -> list[SecretPath]:
    """Return each route once: a direction may have several domains."""
    return list(dict.fromkeys(route for site in sites for route in site.routes))
