"""``[proxy_server]``: where programs find a SOCKS or HTTP proxy, beside the tunnel or without it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from halftunnel_vpn.config import net, values
from halftunnel_vpn.config.schema import Check, Rejected, config_table, entries, option

Place = net.Endpoint | str
"""An address and a port, or the path of a Unix socket."""

MAX_LISTENERS = 16
"""Addresses of one kind."""

MAX_PATH = 107
"""Bytes of the path of a Unix socket (unix(7))."""

_DESTINATION = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]{1,253}):([0-9]{1,5})")


def place(value: object) -> Place:
    """``ADDRESS:PORT``, ``localhost:PORT``, or the path of a Unix socket, which begins with "/"."""
    if isinstance(value, str):
        path = value.removeprefix("unix:")
        if path.startswith("/") and path.isprintable() and len(path.encode()) <= MAX_PATH:
            return path
        name, _, port = value.rpartition(":")
        if name == "localhost":
            value = f"127.0.0.1:{port}"
    try:
        return net.endpoint(value)
    except Rejected:
        raise Rejected(
            "an address and a port, like 127.0.0.1:1080 or [::1]:1080, or the path of a Unix socket "
            f"(at most {MAX_PATH} bytes, it begins with /)"
        ) from None


def destination(value: object) -> str:
    """``HOST:PORT``; the exit resolves the name."""
    match = _DESTINATION.fullmatch(value) if isinstance(value, str) else None
    try:
        if match and isinstance(value, str):
            net.port(int(match[1]))
            host = value.rpartition(":")[0]
            if host.startswith("["):
                net.address(host[1:-1])
            else:
                host = net.domain(host) if not _is_address(host) else host
            return f"{host}:{int(match[1])}"
    except Rejected:
        pass
    raise Rejected("a host and a port, like db.internal:5432 or 192.0.2.1:5432")


def user_name(value: object) -> str:
    """Return a name that fits SOCKS5 and HTTP."""
    if not isinstance(value, str) or not 0 < len(value.encode()) <= 255 or ":" in value:
        raise Rejected("a user name of 1 to 255 bytes, without a colon")
    return value


def password(value: object) -> str:
    """Return a password that fits SOCKS5."""
    if not isinstance(value, str) or not 0 < len(value.encode()) <= 255:
        raise Rejected("a password of 1 to 255 bytes")
    return value


def _is_address(text: str) -> bool:
    try:
        net.address(text)
    except Rejected:
        return False
    return True


def place_text(value: object) -> str:
    """Like :func:`place`, as it is written."""
    place(value)
    assert isinstance(value, str)
    return value


_PLACES: Check[tuple[Place, ...]] = values.several(place, maximum=MAX_LISTENERS)


@config_table
class ProxyServerConfig:
    """``[proxy_server]``: nothing listens unless an address is given."""

    socks: tuple[Place, ...] = option(_PLACES, default=())
    http: tuple[Place, ...] = option(_PLACES, default=())
    allow: tuple[net.Network, ...] = option(values.several(net.network, maximum=1024), default=())
    connections: int = option(values.integer(1, 100_000), default=4096)
    forward: Mapping[str, str] = entries(values.free_table(place_text, destination), default_factory=dict)
    users: Mapping[str, str] = entries(
        values.free_table(user_name, password), default_factory=dict, secret=True
    )

    @property
    def is_wanted(self) -> bool:
        """Whether anything listens."""
        return bool(self.socks or self.http or self.forward)
