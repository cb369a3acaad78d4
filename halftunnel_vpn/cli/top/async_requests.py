"""Requests to the control socket that end at once when their task is cancelled, as a screen needs them."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from halftunnel_vpn.control.requests import MAX_ANSWER
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.http1.exchange import ClientSide
from halftunnel_vpn.http1.messages import MalformedMessage, RequestHead, ResponseHead, Signal

TIMEOUT: Final = 5.0
"""Seconds beyond its long poll within which the client must answer."""

MAX_ANSWER_HEAD: Final = 16 * 1024
"""The most bytes of the head of an answer."""

_READ_SIZE: Final = 64 * 1024


class NotServed(HostError):
    """No process serves the control socket."""


class Unsupported(HostError):
    """The process does not serve this request."""


async def ask(
    path: str, method: str, target: str, content: dict[str, Any] | None = None, *, wait: float = 0.0
) -> dict[str, Any]:
    """Return the JSON object of the answer. Raises HostError with one sentence.

    ``wait`` are the seconds of a long poll. Raises NotServed if no process runs, Unsupported for 404 and 405.
    """
    try:
        async with asyncio.timeout(wait + TIMEOUT):
            status, body = await _exchange(path, method, target, content)
        answer = json.loads(body)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NotServed(f"no client answers at {path}") from None
    except PermissionError:
        raise HostError(f"only root and members of the group halftunnel may use {path}") from None
    except TimeoutError:
        raise HostError(f"the client behind {path} does not answer") from None
    except (OSError, MalformedMessage, ValueError) as error:
        raise NotServed(f"the client behind {path} has gone ({error})") from None
    if status in (404, 405):
        raise Unsupported("this client does not serve that")
    if not isinstance(answer, dict):
        raise HostError(f"what answers at {path} is not an htvpn client of this version; restart it")
    if status >= 400:
        raise HostError(str(answer.get("error")))
    return answer


async def _exchange(path: str, method: str, target: str, content: dict[str, Any] | None) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        body = b"" if content is None else json.dumps(content).encode()
        exchange = ClientSide(max_head=MAX_ANSWER_HEAD)
        headers = [(b"Host", b"localhost"), (b"Connection", b"close")]
        headers.append((b"Content-Length", b"%d" % len(body)))
        head = exchange.request(RequestHead(method.encode(), target.encode(), headers))
        writer.write(head + exchange.data(body) + exchange.end())
        status, answer = 0, bytearray()
        while True:
            part = exchange.next()
            if part is Signal.NEED_DATA:
                exchange.feed(await reader.read(_READ_SIZE))
            elif isinstance(part, ResponseHead):
                status = part.status
            elif isinstance(part, bytes):
                answer += part
                if len(answer) > MAX_ANSWER:
                    raise ValueError("its answer is too long")
            elif part is Signal.END:
                return status, bytes(answer)
            else:
                raise ConnectionResetError("it has closed the connection")
    finally:
        writer.close()
