"""Checks of network values: addresses, networks, names, ports, URLs."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from halftunnel_vpn.config.schema import Rejected
from halftunnel_vpn.config.values import integer

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

MAX_URL = 2000
"""The most characters of a URL."""

MAX_SOCKET_NAME = 107
"""The most characters of a Unix socket's name (sockaddr_un, unix(7))."""

NAT64_LENGTHS = (32, 40, 48, 56, 64, 96)
"""Valid prefix lengths of a NAT64 (RFC 6052)."""

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_ENDPOINT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})")
MAX_HEADER_VALUE = 4096
"""The most characters of the value of one request header."""

_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,128}")
_HEADER_VALUE = re.compile(rf"[ -~]{{0,{MAX_HEADER_VALUE}}}")
UPGRADE_HEADERS = frozenset(
    {
        "host",
        "connection",
        "upgrade",
        "sec-websocket-version",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "content-length",
        "transfer-encoding",
    }
)
"""Headers, in lower case, that a profile may not set: the upgrade needs them unchanged or absent."""

_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")

port = integer(1, 65535)


class Endpoint(NamedTuple):
    """The address of a listener. ``host`` is an IP address as text."""

    host: str
    port: int


class SocketName(NamedTuple):
    """A Unix socket. A relative name is in the directory of the process that makes it."""

    name: str


def address(value: object) -> Address:
    """Return an IPv4 or IPv6 address, without a zone."""
    try:
        if isinstance(value, str) and "%" not in value:
            return ipaddress.ip_address(value)
    except ValueError:
        pass
    raise Rejected("an IPv4 or IPv6 address")


def network(value: object) -> Network:
    """Return a network in CIDR form. A bare address is a network of one."""
    if isinstance(value, str) and "%" not in value:
        try:
            return ipaddress.ip_network(value)
        except ValueError:
            pass
        try:
            cleared = ipaddress.ip_network(value, strict=False)
        except ValueError:
            pass
        else:
            raise Rejected(f"a network without host bits: {cleared}")
    raise Rejected('a network like "10.0.0.0/8" or "fd00::/8"')


def nat64_prefix(value: object) -> ipaddress.IPv6Network:
    """Return the prefix of a NAT64. Its length must be one of RFC 6052 section 2.2."""
    found = network(value)
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen in NAT64_LENGTHS:
        return found
    raise Rejected("an IPv6 network with a prefix of 32, 40, 48, 56, 64 or 96 bits")


def interface_address(value: object) -> Interface:
    """Return an address with prefix length, as used for a device."""
    try:
        if isinstance(value, str) and "%" not in value:
            return ipaddress.ip_interface(value)
    except ValueError:
        pass
    raise Rejected('an address with a prefix length, like "10.73.72.1/32"')


def domain(value: object) -> str:
    """Return a domain name in lower case and ASCII (IDNA), without the final dot."""
    allowed = "a domain name like example.org"
    if not isinstance(value, str) or len(value) > 253:
        raise Rejected(allowed)
    try:
        name = value if value.isascii() else value.encode("idna").decode("ascii")
    except UnicodeError:
        raise Rejected(allowed) from None
    name = name.lower().removesuffix(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise Rejected(allowed)
    return name


def suffix(value: object) -> str:
    """Return a domain that stands for all names below it; ``*.example.org`` or ``.example.org``."""
    try:
        return domain(value.removeprefix("*").removeprefix(".") if isinstance(value, str) else value)
    except Rejected:
        raise Rejected("a domain like example.org, which stands for all names below it too") from None


def host_header(value: object) -> str:
    """Return the value of an HTTP Host header: a name or an address, perhaps with a port."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,260}", value):
        raise Rejected("a host name, perhaps with :port")
    return value


def header_name(value: object) -> str:
    """Return the name of a request header (RFC 9110 section 5.1) that the upgrade does not use itself."""
    if not isinstance(value, str) or not _HEADER_NAME.fullmatch(value):
        raise Rejected("the name of an HTTP header")
    if value.lower() in UPGRADE_HEADERS:
        raise Rejected("the name of a header that the upgrade does not need itself (host_header sets Host)")
    return value


def header_value(value: object) -> str:
    """Return the value of a request header. An empty value removes the header."""
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise Rejected(f"at most {MAX_HEADER_VALUE} printable characters of ASCII")
    return value.strip(" ")


def path(value: object) -> str:
    """Return the path of a URL."""
    if not isinstance(value, str) or len(value) > MAX_URL or not _PATH.fullmatch(value):
        raise Rejected('a path that begins with "/"')
    return value


def websocket_url(value: object) -> str:
    """Return a ws:// or wss:// URL, perhaps with port, path and query. The host is as in :func:`domain`."""
    allowed = "a URL like wss://a.example.org/path (ws:// or wss://, no user, no #fragment)"
    parts = split_url(value, ("ws", "wss"), allowed)
    if (
        parts.username is not None
        or parts.password is not None
        or (parts.path and not _PATH.fullmatch(parts.path))
    ):
        raise Rejected(allowed)
    return urlunsplit(parts)


def proxy_url(value: object) -> str:
    """Return the URL of an HTTP proxy, perhaps with user and password."""
    allowed = "a URL like http://proxy.example.org:3128 or http://user:password@proxy.example.org:3128"
    parts = split_url(value, ("http",), allowed)
    if parts.path not in ("", "/") or parts.query:
        raise Rejected(allowed)
    return urlunsplit(parts)


def collector_url(value: object) -> str:
    """Return the URL of a collector of OpenTelemetry, without the path of a kind of data."""
    allowed = "a URL like https://collector.example.org:4318 (http:// or https://, no user)"
    parts = split_url(value, ("http", "https"), allowed)
    if parts.username is not None or parts.password is not None or parts.query:
        raise Rejected(allowed)
    return urlunsplit(parts).rstrip("/")


def web_server(value: object) -> tuple[str, int]:
    """Return host and port of an ``http://`` URL of a web server, without a path."""
    allowed = "a URL like http://127.0.0.1:8080, without a path"
    url = split_url(value, ("http",), allowed)
    if url.path not in ("", "/") or url.query or url.username is not None or not url.hostname:
        raise Rejected(allowed)
    return url.hostname, url.port or 80


def split_url(value: object, schemes: tuple[str, ...], allowed: str) -> SplitResult:
    """Check scheme, host and port of a URL and split it. Raises :class:`Rejected` with ``allowed``.

    A name is normalized as in certificates, SNI and DNS: ASCII (IDNA), lower case, without the final dot.
    """
    if not isinstance(value, str) or len(value) > MAX_URL or not value.isprintable() or " " in value:
        raise Rejected(allowed)
    try:
        parts = urlsplit(value)
        host, number = parts.hostname, parts.port
    except ValueError:
        raise Rejected(allowed) from None
    if parts.scheme not in schemes or not host or number == 0 or "#" in value:
        raise Rejected(allowed)
    try:
        name = host if ":" in host else domain(host)
        if ":" in host:
            address(host)
    except Rejected:
        raise Rejected(allowed) from None
    before, _, _ = parts.netloc.rpartition("@")
    if not (before + parts.path + parts.query).isascii():
        raise Rejected(allowed)
    if name != host or not value.isascii():
        netloc = name if number is None else f"{name}:{number}"
        parts = parts._replace(netloc=f"{before}@{netloc}" if before else netloc)
    return parts


def endpoint(value: object) -> Endpoint:
    """Return the endpoint ``ADDRESS:PORT``. An IPv6 address is in brackets: ``[::1]:9100``."""
    match = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    try:
        if match:
            found = address(match["six"] or match["four"])
            if found.version == (6 if match["six"] else 4):
                return Endpoint(str(found), port(int(match["port"])))
    except Rejected:
        pass
    raise Rejected("an address and a port, like 127.0.0.1:9100 or [::1]:9100")


def page_place(value: object) -> Endpoint | SocketName:
    """Return where a page for this machine alone is: ``127.0.0.1:PORT``, ``[::1]:PORT`` or ``unix:NAME``."""
    name = value.removeprefix("unix:") if isinstance(value, str) and value.startswith("unix:") else ""
    if name and name.isprintable() and len(name) <= MAX_SOCKET_NAME:
        return SocketName(name)
    try:
        found = endpoint(value)
        if found.host == "::1" or found.host.startswith("127."):
            return found
    except Rejected:
        pass
    raise Rejected(
        'a loopback address and a port, like 127.0.0.1:8750, or "unix:web.sock"; '
        "reach it from another machine with ssh -L"
    )
