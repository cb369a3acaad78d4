"""systemd-resolved: sets the servers of the TUN link over D-Bus. See org.freedesktop.resolve1(5)."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.resolver import resolv_conf_file

KIND: Final = "resolved"

CALL_TIMEOUT: Final = 10.0
"""Seconds within which systemd-resolved must answer one call."""

STUBS: Final = frozenset({"127.0.0.53", "127.0.0.54"})
"""The addresses on which it answers programs of its host."""

DIRECTORY: Final = Path("/run/systemd/resolve")

_COMMAND: Final = "systemd-resolve"  # the kernel keeps only 15 bytes of a command's name
_NSSWITCH: Final = Path("/etc/nsswitch.conf")
_NAME: Final = "org.freedesktop.resolve1"
_PATH: Final = "/org/freedesktop/resolve1"
_MANAGER: Final = f"{_NAME}.Manager"
_LINK: Final = f"{_NAME}.Link"
_SEARCH_ALL: Final = [(".", True)]  # resolvectl writes it "~."


def manages(path: Path) -> bool:
    """Return whether names are resolved by a systemd-resolved in this network namespace.

    Programs reach it by ``path`` (/etc/resolv.conf) that leads to its stub or its directory, or by the
    module `resolve` of nsswitch.conf(5).
    """
    servers = set(resolv_conf_file.servers_in(resolv_conf_file.read(path) or b""))
    stub = bool(servers) and servers <= STUBS
    target = path.resolve()
    linked = target.is_relative_to(DIRECTORY) and not resolv_conf_file.is_mount_point(target)
    asked = path == resolv_conf_file.RESOLV_CONF and _nss_asks_it()
    return (stub or linked or asked) and _COMMAND in resolv_conf_file.commands_here()


def set_link(device: str, servers: tuple[str, ...]) -> str | None:
    """Make the device the link for every name. Return a sentence if resolved refuses, otherwise None."""
    addresses = [ipaddress.ip_address(server) for server in servers]
    try:
        index = socket.if_nametoindex(device)
        with _bus() as call:
            families = [
                (socket.AF_INET if address.version == 4 else socket.AF_INET6, address.packed)
                for address in addresses
            ]
            call("SetLinkDNS", "ia(iay)", (index, families))
            call("SetLinkDomains", "ia(sb)", (index, _SEARCH_ALL))
            call("SetLinkDefaultRoute", "ib", (index, True))
            call("SetLinkLLMNR", "is", (index, "no"))
            call("SetLinkMulticastDNS", "is", (index, "no"))
            call("SetLinkDNSOverTLS", "is", (index, "no"))  # the tunnel encrypts, and answers on port 53 only
            call("FlushCaches", "", ())
    except (OSError, HostError) as error:
        return f"systemd-resolved did not take the tunnel's servers: {error}"
    return None


def difference(device: str, servers: tuple[str, ...]) -> str | None:
    """Return how the device's settings differ from those of :func:`set_link`; None if they do not."""
    try:
        index = socket.if_nametoindex(device)
        with _bus() as call:
            (link,) = call("GetLink", "i", (index,))
            has_servers = [str(ipaddress.ip_address(data)) for _, data in call.read(link, _LINK, "DNS")]
            if has_servers != list(servers):
                return f"systemd-resolved does not have the tunnel's servers for {device}."
            domains = [tuple(item) for item in call.read(link, _LINK, "Domains")]
            if domains != _SEARCH_ALL or not call.read(link, _LINK, "DefaultRoute"):
                return f"systemd-resolved does not ask {device} about every name."
    except (OSError, HostError) as error:
        return f"systemd-resolved cannot be asked about {device}: {error}"
    return None


def revert_link(device: str) -> None:
    """Remove the device's settings. If the device is gone, they are gone with it."""
    with contextlib.suppress(OSError, HostError), _bus() as call:
        call("RevertLink", "i", (socket.if_nametoindex(device),))
        call("FlushCaches", "", ())


def servers(without: str) -> tuple[str, ...]:
    """Return the resolvers of every link except the device ``without``; empty if not available."""
    try:
        ours = socket.if_nametoindex(without)
    except OSError:
        ours = -1  # the device does not exist
    try:
        with _bus() as call:
            found = [
                _scoped(ipaddress.ip_address(address), index)
                for index, _, address in call.read(_PATH, _MANAGER, "DNS")
                if index != ours
            ]
    except (OSError, HostError):
        return ()
    return tuple(dict.fromkeys(server for server in found if server not in STUBS))


def _scoped(address: ipaddress.IPv4Address | ipaddress.IPv6Address, index: int) -> str:
    """Return a link-local address with its link, without which it is ambiguous."""
    if address.version == 6 and address.is_link_local and index > 0:
        with contextlib.suppress(OSError):  # the link is gone
            return f"{address}%{socket.if_indextoname(index)}"
    return str(address)


class _Calls:
    """Calls over one connection to the system bus."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __call__(self, method: str, signature: str, arguments: tuple[Any, ...]) -> Any:
        """Return the body of the answer. Raises HostError with the error text of resolved."""
        from jeepney import DBusAddress, new_method_call

        manager = DBusAddress(_PATH, bus_name=_NAME, interface=_MANAGER)
        return self._ask(new_method_call(manager, method, signature or None, arguments))

    def read(self, path: str, interface: str, name: str) -> Any:
        """Return the value of a property."""
        from jeepney import DBusAddress, Properties

        asked = Properties(DBusAddress(path, bus_name=_NAME, interface=interface)).get(name)
        ((_, value),) = self._ask(asked)
        return value

    def _ask(self, message: Any) -> Any:
        from jeepney import MessageType

        reply = self._connection.send_and_get_reply(message, timeout=CALL_TIMEOUT)
        if reply.header.message_type is MessageType.error:
            reason = reply.body[0] if reply.body else "no reason given"
            raise HostError(f"{str(reason).rstrip('.')}.")
        return reply.body


@contextlib.contextmanager
def _bus() -> Iterator[_Calls]:
    from jeepney.io.blocking import open_dbus_connection

    try:
        connection = open_dbus_connection(bus="SYSTEM")
    except (OSError, EOFError, ValueError) as error:
        raise HostError(f"the system's D-Bus is not there ({error}).") from error
    try:
        yield _Calls(connection)
    finally:
        connection.close()


def _nss_asks_it() -> bool:
    try:
        lines = _NSSWITCH.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("hosts:") and "resolve" in line.split() for line in lines)
