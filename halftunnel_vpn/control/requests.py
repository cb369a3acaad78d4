"""The client of the control socket, with which `htvpn` queries and controls a running process."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, NamedTuple

from halftunnel_vpn.control.status_schema import DOWN_PATH, STATUS_PATH
from halftunnel_vpn.errors import HostError

TIMEOUT = 5.0
"""Seconds until the process must answer."""

MAX_ANSWER = 16 * 1024 * 1024
"""The most bytes of an answer."""


class ControlAnswer(NamedTuple):
    """Status code and body of an answer."""

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


class NoAccess(HostError):
    """This user may not use the socket."""


def ask(
    path: str, method: str, target: str, *, body: bytes | None = None, timeout: float = TIMEOUT
) -> ControlAnswer | None:
    """Send one request over the Unix socket ``path``; return None if no process serves it.

    Raises HostError when the process does not answer, NoAccess when access is denied.
    """
    connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        return ControlAnswer(response.status, response.read(MAX_ANSWER))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except PermissionError as error:
        raise NoAccess(
            f"only root and members of the group halftunnel may use {path}; run this as root"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise HostError(
            f"the client behind {path} does not answer ({error}); see its log, or stop its process"
        ) from error
    finally:
        connection.close()


def command(
    path: str,
    method: str,
    target: str,
    content: dict[str, Any] | bytes | None = None,
    *,
    timeout: float = TIMEOUT,
) -> dict[str, Any] | None:
    """Send one request and return the JSON object of the answer; None if no process serves ``path``.

    Raises HostError with the sentence of the other side when it refuses.
    """
    body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
    answer = ask(path, method, target, body=body, timeout=timeout)
    if answer is None:
        return None
    told = _object(answer.body)
    if answer.status < 400 and told is not None:
        return told
    if answer.status in (404, 405):
        raise HostError(
            f"{path} belongs to 'htvpn up --foreground', which cannot do this: it has one profile and writes "
            "its log to its own terminal"
        )
    sentence = None if told is None else told.get("error")
    if not isinstance(sentence, str):
        raise _other_version(path, "restart it")
    raise HostError(sentence)


def read_status(path: str) -> dict[str, Any] | None:
    """Return the status of the running client; None if none runs. Raises HostError."""
    answer = ask(path, "GET", STATUS_PATH)
    if answer is None:
        return None
    status = _object(answer.body)
    if answer.status == 403 and status is not None and isinstance(status.get("error"), str):
        raise HostError(status["error"])
    if answer.status != 200 or status is None:
        raise _other_version(path, "restart it")
    return status


def request_stop(path: str) -> bool:
    """Ask the running client to stop; return False if none runs. Raises HostError."""
    answer = ask(path, "POST", DOWN_PATH)
    if answer is not None and answer.status == 403:
        raise HostError("only root and members of the group halftunnel may use htvpn here")
    if answer is not None and answer.status != 202:
        raise _other_version(path, "stop its process")
    return answer is not None


def is_served(path: str) -> bool:
    """Return whether a process listens at ``path``, also if it is busy or denies access."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(TIMEOUT)
        try:
            probe.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except OSError:
            return True  # the next request reports what is wrong
    return True


def _object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object of an answer; None if it is not one."""
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _other_version(path: str, advice: str) -> HostError:
    return HostError(f"what answers at {path} is not an htvpn client of this version; {advice}")
