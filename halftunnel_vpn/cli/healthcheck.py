"""`htvpn healthcheck`: an exit code for what watches a container. 0 healthy, 1 not, 3 not connected."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from argparse import Namespace
from pathlib import Path
from urllib.parse import urlsplit

from halftunnel_vpn.config import DEFAULT_CONTROL_SOCKET
from halftunnel_vpn.config.environment_variables import variable
from halftunnel_vpn.errors import HostError

TIMEOUT = 3.0
"""Seconds that one answer may take."""

EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}  # replaced, not bound  # nosec B104
"""A listener on every address is asked at this one."""

NOT_CONNECTED = 3


def run(options: Namespace) -> int:
    """Ask the exit in ``--dir``, or else the client at ``--socket``. Raises HostError when not healthy."""
    if options.dir is not None:
        return _exit(Path(options.dir))
    return _client(options.socket or os.environ.get(variable("control", "socket")) or DEFAULT_CONTROL_SOCKET)


def _client(path: str) -> int:
    """A client is healthy while both directions carry data."""
    from halftunnel_vpn.control import requests
    from halftunnel_vpn.control.status_schema import TunnelState

    status = requests.read_status(path)
    if status is None:
        print(f"not connected: no client answers at {path}")
        return NOT_CONNECTED
    if status["state"] == TunnelState.CONNECTED and not status["lost"]:
        print(f"connected, profile {status['profile']}")
        return 0
    what = f"no leg {' and '.join(status['lost'])}" if status["lost"] else str(status["state"])
    print(f"not connected: {status['sentence'] or what}")
    return NOT_CONNECTED


def _exit(directory: Path) -> int:
    """An exit is healthy while it answers: at its metrics where it has them, or else at its listeners.

    A flood of strangers fills the listeners, and must not look like an exit that is to be started again.
    """
    from halftunnel_vpn.cli import server_directory

    config = server_directory.load(directory)
    if config.metrics.listen is not None:
        endpoint = config.metrics.listen
        status = _get(_reachable(str(endpoint.host)), endpoint.port, "localhost", "/healthz")
        if status != 200:
            raise HostError(f"the exit answers {status} at /healthz in place of 200")
        print("the exit answers")
        return 0
    for name in ("upstream", "downstream"):
        listener, public = getattr(config.listen, name), getattr(config.public, name)
        host = urlsplit(public.urls[0]).hostname or "localhost"
        _get(_reachable(listener.address), listener.port, host, "/", tls=listener.tls)
    print("both listeners answer")
    return 0


def _reachable(address: str) -> str:
    return EVERY_ADDRESS.get(address, address)


def _get(address: str, port: int, host: str, path: str, *, tls: bool = False) -> int:
    """Return the status of an answer. Raises HostError when there is none."""
    try:
        with socket.create_connection((address, port), timeout=TIMEOUT) as plain:
            sock = _encrypted(plain, host) if tls else plain
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(sock)
            response.begin()
            return response.status
    except (OSError, http.client.HTTPException) as error:
        raise HostError(
            f"the exit does not answer at {address} port {port}: {getattr(error, 'strerror', None) or error}"
        ) from error


def _encrypted(sock: socket.socket, host: str) -> socket.socket:
    """Speak TLS on ``sock``. Whether the certificate is good for clients is not asked here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=host)
