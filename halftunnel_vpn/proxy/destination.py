"""Destinations as programs write them: an address or a name, which the exit resolves."""

from __future__ import annotations

import ipaddress

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.protocol.host_encoding import Host, encode_host


def host_of(text: str) -> Host:
    """Return the address in ``text``, or the name in ASCII (IDNA). Raises ValueError if it is neither.

    Programs send addresses as names as well, IPv6 in brackets or not.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return ipaddress.ip_address(bare).packed
    except ValueError:
        pass
    name = text.removesuffix(".")
    if not name.isascii():
        name = name.encode("idna").decode("ascii")  # UnicodeError is a ValueError
    try:
        encode_host(name, "proxy")
    except WireError as error:
        raise ValueError(str(error)) from error
    if not name:
        raise ValueError("no name")
    return name


def authority_of(text: str, default_port: int | None = None) -> tuple[Host, int]:
    """Return host and port of ``HOST:PORT``. Raises ValueError.

    Without a port, ``default_port`` is used; None means that the port is required.
    """
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, ""
    if not port and default_port is not None:
        return host_of(host), default_port
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError("no port")
    return host_of(host), int(port)
