"""The other end of the control socket: what `htvpn status` and `htvpn down` ask with."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, NamedTuple

from halftunnel_vpn.control.status import DOWN_PATH, STATUS_PATH
from halftunnel_vpn.errors import HostError

TIMEOUT = 5.0
"""Seconds until a process that does not answer is given up."""

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer."""


class Answer(NamedTuple):
    """Status code and body."""

    status: int
    body: bytes


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    path: str, method: str, target: str, *, body: bytes | None = None, timeout: float = TIMEOUT
) -> Answer | None:
    """One request to the process behind the Unix socket ``path``; None when there is no such process.

    Raises HostError when it may not be asked or does not answer.
    """
    connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        return Answer(response.status, response.read(MAX_ANSWER))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except PermissionError as error:
        raise HostError(f"only its owner may use {path}; run this as root") from error
    except (OSError, http.client.HTTPException) as error:
        raise HostError(
            f"the client behind {path} does not answer ({error}); see its log, or stop its process"
        ) from error
    finally:
        connection.close()


def read_status(path: str) -> dict[str, Any] | None:
    """The running client's status (see ``control/status.py``), None when none runs. Raises HostError."""
    answer = ask(path, "GET", STATUS_PATH)
    if answer is None:
        return None
    try:
        status = json.loads(answer.body) if answer.status == 200 else None
    except ValueError:
        status = None
    if not isinstance(status, dict):
        raise HostError(f"what answers at {path} is no htvpn client of this version; restart it")
    return status


def request_stop(path: str) -> bool:
    """Tell the running client to stop; False when none runs. Raises HostError."""
    answer = ask(path, "POST", DOWN_PATH)
    if answer is not None and answer.status != 202:
        raise HostError(f"what answers at {path} is no htvpn client of this version; stop its process")
    return answer is not None


def is_served(path: str) -> bool:
    """Whether a process listens at ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(TIMEOUT)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
