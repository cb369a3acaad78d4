"""As much of an HTTP/2 client (RFC 9113) as loading pages needs: requests without bodies, answers to GET.

Response headers are not read: no HPACK decoder is needed, and the length of a body shows whether it is right.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import zlib
from typing import Final

WINDOW: Final = 6 << 20
"""Bytes of a response that may be under way, and half of what a whole connection has; as Chromium has it."""

FRAME_LIMIT: Final = 1 << 16

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_TABLE_SIZE, _PUSH, _INITIAL_WINDOW = 1, 2, 4

_FIRST_FIELDS: Final = (500, 1300)
"""Bytes of the fields of a connection's first request: agent, languages, cookies, hints.

Names differ in it, between these bounds, since their cookies do.
"""

_LATER_FIELDS: Final = 140
"""Bytes of the same fields once the server's table knows them."""


class Http2Error(Exception):
    """The server did not answer as it should."""


class Connection:
    """One connection to one name, with any number of requests at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._next_stream = 1
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._received: dict[int, int] = {}
        # bytes of the connection's window that were read and not yet granted again
        self._ungranted = 0
        settings = struct.pack(">HIHIHI", _TABLE_SIZE, 65536, _PUSH, 0, _INITIAL_WINDOW, WINDOW)
        self._writer.write(_PREFACE)
        self._send(_SETTINGS, 0, 0, settings)
        self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", 2 * WINDOW))
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, host: str, port: int, context: ssl.SSLContext) -> Connection:
        """Connect by TLS. Raises OSError, Http2Error."""
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
        tls = writer.get_extra_info("ssl_object")
        if tls.selected_alpn_protocol() != "h2":
            raise Http2Error(f"{host} does not speak HTTP/2")
        return cls(reader, writer)

    async def get(self, host: str, path: str) -> int:
        """Request a path and return the bytes of the body. Raises Http2Error."""
        stream = self._next_stream
        self._next_stream += 2
        low, high = _FIRST_FIELDS
        filler = low + zlib.crc32(host.encode()) % (high - low) if stream == 1 else _LATER_FIELDS
        # indexed :method GET and :scheme https; literals with the static names 1 (:authority) and 4 (:path)
        block = b"\x82\x87" + b"\x01" + _text(host) + b"\x04" + _text(path)
        block += b"\x00" + _text("user-agent") + _text("x" * filler)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[stream] = answer
        if self._task.done():
            raise Http2Error(f"the connection to {host} is closed")
        self._send(_HEADERS, _END_STREAM | _END_HEADERS, stream, block)
        return await answer

    async def close(self) -> None:
        """Close the connection at once."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.transport.abort()

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        length = len(payload).to_bytes(3, "big")
        self._writer.write(length + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload)

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                if length > FRAME_LIMIT:
                    raise Http2Error(f"a frame of {length} bytes")
                payload = await self._reader.readexactly(length)
                self._take(kind, flags, int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload)
        except (OSError, asyncio.IncompleteReadError, Http2Error) as error:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Http2Error(f"the connection broke: {error}"))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._send(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._send(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY:
            raise Http2Error("the server said GOAWAY")
        elif kind in (_DATA, _HEADERS):
            if kind == _DATA:
                self._received[stream] = self._received.get(stream, 0) + len(payload)
                self._ungranted += len(payload)
                if self._ungranted > WINDOW:
                    self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._ungranted))
                    self._ungranted = 0
            if flags & _END_STREAM and (answer := self._waiting.pop(stream, None)):
                answer.set_result(self._received.pop(stream, 0))
        elif kind == _RESET and (answer := self._waiting.pop(stream, None)):
            answer.set_exception(Http2Error("the server reset a stream"))


def _text(text: str) -> bytes:
    """Return a string literal of HPACK without Huffman coding (RFC 7541 sections 5.1 and 5.2)."""
    raw = text.encode()
    if len(raw) < 127:
        return bytes((len(raw),)) + raw
    rest = len(raw) - 127
    length = bytearray((127,))
    while rest >= 128:
        length.append(rest & 127 | 128)
        rest >>= 7
    return bytes(length) + bytes((rest,)) + raw
