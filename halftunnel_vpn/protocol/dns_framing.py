"""DNS messages on a byte stream: each is preceded by its length in two bytes (RFC 1035 section 4.2.2)."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.protocol.wire import Buffer

LENGTH_BYTES: Final = 2
"""Bytes of the length in front of every message."""

MAX_MESSAGE: Final = 65535
"""Bytes of the longest message."""


def frame(message: Buffer) -> bytes:
    """Return ``message`` as it goes on a stream. Raises WireError: dns-message-too-long."""
    length = len(message)
    if length > MAX_MESSAGE:
        raise WireError("dns-message-too-long", f"{length} bytes")
    return length.to_bytes(LENGTH_BYTES, "big") + message


def message_length(head: Buffer) -> int:
    """Return the length of the message that the two bytes in ``head`` announce."""
    return int.from_bytes(head[:LENGTH_BYTES], "big")


class FrameReader:
    """Cuts a byte stream, which comes in any pieces, into messages of ``longest`` bytes at most.

    The user bounds what waits here: it stops feeding while ``len(reader)`` is high.
    """

    def __init__(self, longest: int = MAX_MESSAGE) -> None:
        self._longest = longest
        self._received = bytearray()
        self._start = 0

    def __len__(self) -> int:
        """Return the bytes that wait, lengths included."""
        return len(self._received) - self._start

    def feed(self, data: Buffer) -> None:
        """Take over the next bytes of the stream."""
        if self._start:
            del self._received[: self._start]
            self._start = 0
        self._received += data

    def clear(self) -> None:
        """Drop what waits."""
        self._received.clear()
        self._start = 0

    def peek(self) -> bytes | None:
        """Return the next message without taking it; None while it is not whole.

        Raises WireError(``dns-message-too-long``) as soon as it is announced as longer than ``longest``.
        """
        received, start = self._received, self._start + LENGTH_BYTES
        if len(received) < start:
            return None
        length = message_length(received[self._start : start])
        if length > self._longest:
            raise WireError("dns-message-too-long", f"{length} bytes")
        if len(received) < start + length:
            return None
        return bytes(received[start : start + length])

    def take(self) -> bytes | None:
        """Return the next message and remove it; otherwise as :meth:`peek`."""
        message = self.peek()
        if message is not None:
            self._start += LENGTH_BYTES + len(message)
        return message
