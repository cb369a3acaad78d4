"""What an exchange of HTTP/1.1 consists of. A service imports the library with its first request."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

Headers = list[tuple[bytes, bytes]]
"""Names and values in order; names come in lower case."""


class RequestHead(NamedTuple):
    """What a request begins with."""

    method: bytes
    target: bytes
    headers: Headers


class ResponseHead(NamedTuple):
    """What a response begins with; ``is_final`` is false for 100 to 199."""

    status: int
    reason: bytes
    headers: Headers
    is_final: bool = True


class Signal(Enum):
    """What :meth:`next` of either side returns when it returns no part of a message."""

    END = 1
    """The message is complete."""
    NEED_DATA = 2
    """Call :meth:`feed` with more."""
    PAUSED = 3
    """The message after this one waits until this exchange is over, or the protocol may change."""
    CLOSED = 4
    """The peer sends nothing more."""


Part = RequestHead | ResponseHead | bytes | Signal
"""A head, a piece of a body, or a signal."""


class MalformedMessage(Exception):
    """The peer broke the rules of HTTP; ``status`` is that of the answer which says so."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class UnsendableMessage(Exception):
    """The data to send, which comes from another program, would violate HTTP."""
