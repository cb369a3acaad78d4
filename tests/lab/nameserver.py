"""A small authoritative DNS server (RFC 1035) over UDP and TCP: `python -m lab.nameserver`.

Written by hand, so that it is independent of what it helps to test. It prints one line per question, so that
a test can see who was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import signal
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

Zone = Mapping[str, Sequence[tuple[str, str]]]
"""Lower-case name without a closing dot -> its records as (type, value).

``*.parent`` stands for all names one label below that are not in the zone (RFC 4592)."""

TYPES: Final = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "TXT": 16, "AAAA": 28}
TTL: Final = 60
"""Seconds for every record."""
UDP_LIMIT: Final = 512
"""Bytes of an answer over UDP to a client without EDNS (RFC 1035 section 4.2.1)."""
MAX_CHAIN: Final = 8
"""CNAMEs that are followed within the zone."""
TCP_IDLE: Final = 10.0
"""Seconds a TCP connection may stay silent."""

_HEADER: Final = struct.Struct(">HHHHHH")
_QUESTION: Final = struct.Struct(">HH")
_RECORD: Final = struct.Struct(">HHIH")
_CLASS_IN: Final = 1
_TYPE_OPT: Final = 41
_RESPONSE_FLAGS: Final = 0x8480  # response, authoritative, recursion available
_TRUNCATED: Final = 0x0200
_RECURSION_DESIRED: Final = 0x0100
_FORMAT_ERROR, _NAME_ERROR, _NOT_IMPLEMENTED = 1, 3, 4
_SOA_NUMBERS: Final = struct.Struct(">IIIII").pack(1, 3600, 600, 86400, TTL)


def answer(zone: Zone, query: bytes, *, stream: bool) -> bytes | None:
    """The answer to one message, None for what is no query; ``stream`` is True over TCP."""
    if len(query) < _HEADER.size:
        return None
    identifier, flags, questions, _, _, additional = _HEADER.unpack_from(query)
    if flags & 0x8000:
        return None
    reply_flags = _RESPONSE_FLAGS | (flags & _RECURSION_DESIRED)
    if flags & 0x7800:
        return _HEADER.pack(identifier, reply_flags | _NOT_IMPLEMENTED, 0, 0, 0, 0)
    try:
        if questions != 1:
            raise ValueError("one question, please")
        name, end = _read_name(query, _HEADER.size)
        wanted, _ = _QUESTION.unpack_from(query, end)
        end += _QUESTION.size
        limit = 65535 if stream else _edns_size(query, end, additional)
    except (ValueError, struct.error, IndexError):
        return _HEADER.pack(identifier, reply_flags | _FORMAT_ERROR, 0, 0, 0, 0)
    records = _resolve(zone, name, wanted)
    authority = [] if records else [_record("", TYPES["SOA"], _soa())]
    code = _NAME_ERROR if _entries(zone, name) is None else 0
    question = query[_HEADER.size : end]
    body = b"".join([question, *records, *authority])
    if _HEADER.size + len(body) > limit:
        return _HEADER.pack(identifier, reply_flags | _TRUNCATED | code, 1, 0, 0, 0) + question
    return _HEADER.pack(identifier, reply_flags | code, 1, len(records), len(authority), 0) + body


def question_of(query: bytes) -> str:
    """``NAME TYPE`` of a query, for the log."""
    try:
        name, end = _read_name(query, _HEADER.size)
        number, _ = _QUESTION.unpack_from(query, end)
    except (ValueError, struct.error, IndexError):
        return "malformed"
    return f"{name} {next((word for word, value in TYPES.items() if value == number), number)}"


def load_zone(path: Path) -> Zone:
    """A zone from JSON: ``{"name": [["A", "192.0.2.1"], ...]}``."""
    content: dict[str, list[tuple[str, str]]] = json.loads(path.read_text())
    return {name: [(kind, value) for kind, value in records] for name, records in content.items()}


def _resolve(zone: Zone, name: str, wanted: int) -> list[bytes]:
    records: list[bytes] = []
    for _ in range(MAX_CHAIN):
        entries = _entries(zone, name) or ()
        records += [
            _record(name, wanted, _data(kind, value)) for kind, value in entries if TYPES[kind] == wanted
        ]
        alias = next((value for kind, value in entries if kind == "CNAME"), None)
        if alias is None or wanted == TYPES["CNAME"]:
            break
        records.append(_record(name, TYPES["CNAME"], _data("CNAME", alias)))
        name = alias
    return records


def _entries(zone: Zone, name: str) -> Sequence[tuple[str, str]] | None:
    found = zone.get(name)
    return zone.get(f"*.{name.partition('.')[2]}") if found is None else found


def _record(name: str, kind: int, data: bytes) -> bytes:
    return _name(name) + _RECORD.pack(kind, _CLASS_IN, TTL, len(data)) + data


def _data(kind: str, value: str) -> bytes:
    if kind in ("A", "AAAA"):
        return ipaddress.ip_address(value).packed
    if kind == "TXT":
        text = value.encode()
        pieces = [text[start : start + 255] for start in range(0, len(text), 255)] or [b""]
        return b"".join(bytes([len(piece)]) + piece for piece in pieces)
    return _name(value)


def _soa() -> bytes:
    return _name("ns.test") + _name("nobody.test") + _SOA_NUMBERS


def _name(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _read_name(message: bytes, offset: int) -> tuple[str, int]:
    """A name without compression (a question needs none) and where it ends."""
    labels = []
    while length := message[offset]:
        if length > 63:
            raise ValueError("a compressed question")
        labels.append(message[offset + 1 : offset + 1 + length].decode("latin-1").lower())
        offset += 1 + length
    return ".".join(labels), offset + 1


def _edns_size(query: bytes, offset: int, additional: int) -> int:
    """What an OPT record right after the question allows (RFC 6891 section 6.2.3)."""
    if additional and query[offset : offset + 1] == b"\0":
        kind: int
        size: int
        kind, size = _QUESTION.unpack_from(query, offset + 1)
        if kind == _TYPE_OPT:
            return max(UDP_LIMIT, size)
    return UDP_LIMIT


# --- the server ---------------------------------------------------------------------------------


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        print(f"udp {address[0]} {question_of(data)}", flush=True)
        reply = answer(self._zone, data, stream=False)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, address)


async def _serve_stream(zone: Zone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            async with asyncio.timeout(TCP_IDLE):
                length = int.from_bytes(await reader.readexactly(2))
                query = await reader.readexactly(length)
            print(f"tcp {writer.get_extra_info('peername')[0]} {question_of(query)}", flush=True)
            reply = answer(zone, query, stream=True)
            if reply is not None:
                writer.write(len(reply).to_bytes(2) + reply)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        pass  # the client is done, one way or another
    finally:
        writer.close()


async def serve(zone: Zone, addresses: Sequence[str], port: int) -> None:
    """Answer on every address, over UDP and TCP, until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    transports = []
    for address in addresses:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(zone), local_addr=(address, port)
        )
        transports.append(transport)

    def serve_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> asyncio.Future[None]:
        return loop.create_task(_serve_stream(zone, reader, writer))

    server = await asyncio.start_server(serve_stream, list(addresses), port)
    await ended.wait()
    server.close()
    for transport in transports:
        transport.close()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zone", type=Path, required=True, help="the records, as JSON")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("address", nargs="+", help="addresses to answer on")
    arguments = parser.parse_args()
    asyncio.run(serve(load_zone(arguments.zone), arguments.address, arguments.port))


if __name__ == "__main__":
    main()
