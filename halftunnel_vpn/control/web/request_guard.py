"""Which requests reach the web page: those of a browser that means this page, under a name of this machine.

A page of the Internet can make a browser ask any address, also with a name of its own that it lets point to
127.0.0.1 (DNS rebinding). So the Host header must be a loopback name, and the browser must not say that the
request comes from another origin.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from halftunnel_vpn.control.request_reader import Request

POLICY_HEADERS: Final = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Cache-Control", b"no-store"),
)
"""Headers of every answer: nothing of another origin, nothing inline, no frame around it, nothing kept."""

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:]{2,39}\]|[0-9A-Za-z.-]{1,253})(?::([0-9]{1,5}))?")


def host_of(request: Request) -> str | None:
    """Return the Host header if it names this machine's loopback, with any port; None if not.

    The port may be another one than ours: that of `ssh -L`.
    """
    text = request.headers.get(b"host", b"").decode("latin-1")
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    name = match[1].lower()
    if name == "localhost":
        return text.lower()
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None
    return text.lower() if is_loopback(str(address)) else None


def is_loopback(address: str) -> bool:
    """Return whether an IP address is 127.0.0.0/8 or ::1."""
    found = ipaddress.ip_address(address)
    return found == ipaddress.IPv6Address("::1") or (found.version == 4 and found.is_loopback)


def is_of_this_page(request: Request, host: str) -> bool:
    """Return whether a request for data or a change comes from our page, or from no page at all.

    Browsers send Origin with every POST, and Sec-Fetch-Site with every request to a loopback address.
    """
    origin = request.headers.get(b"origin")
    site = request.headers.get(b"sec-fetch-site", b"same-origin")
    if site != b"same-origin":
        return False
    if origin is None:
        return request.method in ("GET", "HEAD")
    return origin.lower() == b"http://" + host.encode()


def port_of(host: str) -> str:
    """Return the port in a Host header, 80 if it has none."""
    match = _HOST.fullmatch(host)
    return "80" if match is None or match[2] is None else match[2]
