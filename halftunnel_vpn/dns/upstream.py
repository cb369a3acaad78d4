"""Asking resolvers by UDP and, for what does not fit, by TCP (RFC 7766), on sockets of this host."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Hashable, Sequence
from itertools import islice

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.answer import addresses_in, parse_answer, same_question
from halftunnel_vpn.dns.dns_config import Server
from halftunnel_vpn.dns.message import Query, address_query, parse_query
from halftunnel_vpn.dns.message_reader import (
    FLAG_RESPONSE,
    FLAG_TRUNCATED,
    HEADER,
    HEADER_LENGTH,
    RCODE_MASK,
    Rcode,
    RecordType,
    records,
)
from halftunnel_vpn.dns.turns import ONE_CLIENT, ClientTurns, TurnLimits
from halftunnel_vpn.errors import ConfigError, DnsError
from halftunnel_vpn.protocol.dns_framing import LENGTH_BYTES, MAX_MESSAGE, frame, message_length

MAX_WRONG_ANSWERS = 16
"""Answers to other questions on one socket that suggest an attacker who guesses; TCP is used then."""

CHECKED_WHOLE = 4096
"""Bytes of an answer up to which every record is checked before it is passed on."""

MAX_CHECKED_RECORDS = 64
"""Records of a longer answer that are checked."""

MAX_NAMESERVERS = 3
"""Nameservers taken from a resolv.conf, as the C library does."""

DNS_PORT = 53
_FAILURES = (Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED)


class UpstreamResolver:
    """Resolvers that are asked one after the other, the one that answered last first.

    Each try (UDP, TCP if the answer was truncated, and both without EDNS if that is not known) takes at most
    ``timeout`` seconds; every server is tried ``attempts`` times. ``mark`` is put on the sockets (SO_MARK,
    needs CAP_NET_ADMIN). ``limits`` bounds the questions on the network and waiting. A server
    that is not an IP address raises ConfigError.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        *,
        counters: Counters,
        mark: int | None = None,
        timeout: float = 2.0,
        attempts: int = 2,
        limits: TurnLimits = ONE_CLIENT,
    ) -> None:
        self._given: list[Server] = []
        self._servers: list[Server] = []
        self.set_servers(servers)
        self._counters = counters
        self._mark = mark
        self._timeout = timeout
        self._attempts = attempts
        self.turns = ClientTurns(limits)

    def set_servers(self, servers: Sequence[Server]) -> None:
        """Ask these from now on; the preference stays while they are the same. Raises ConfigError."""
        if list(servers) == self._given:
            return
        for address, _ in servers:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ConfigError(f"The resolver {address!r} must be given as an IP address.") from None
        self._given = list(servers)
        self._servers = list(servers)

    async def query(self, message: bytes, client: Hashable = None) -> bytes:
        """Return the answer to the query in ``message``, under the query's own id.

        ``client`` is the client that asks: clients take turns.
        Raises DnsError: what :func:`~halftunnel_vpn.dns.message.parse_query` and
        :func:`~halftunnel_vpn.dns.answer.parse_answer` do, ``dns-timeout``, ``dns-unreachable``,
        ``dns-closed``, ``dns-no-resolver``, and at a bound what :class:`ClientTurns` does.
        """
        query = parse_query(message)
        async with self.turns.turn(client):
            answer = await self._ask_servers(message, query)
        # The resolver may have changed the letter case of the name; the client expects its own.
        question = query.question
        return message[:2] + answer[2:HEADER_LENGTH] + question + answer[HEADER_LENGTH + len(question) :]

    async def resolve(self, name: str, version: int, client: Hashable = None) -> list[str]:
        """The addresses (``version`` 4 or 6) of ``name``, CNAME records followed; empty if it has none.

        Raises DnsError as :meth:`query` does, and ``dns-no-such-name``, ``dns-refused`` (any other failure
        that the resolver reports), ``dns-bad-name``, ``dns-bad-record``, ``dns-too-many-aliases``.
        """
        type_ = RecordType.A if version == 4 else RecordType.AAAA
        answer = await self.query(address_query(name, type_), client)
        rcode = _rcode(answer)
        if rcode == Rcode.NXDOMAIN:
            raise DnsError("dns-no-such-name", name)
        if rcode != Rcode.NOERROR:
            raise DnsError("dns-refused", f"{name}: response code {rcode}")
        return addresses_in(answer, type_)

    async def _ask_servers(self, message: bytes, query: Query) -> bytes:
        """Return the first success, otherwise a failure that a server reports. Raises DnsError."""
        error = DnsError("dns-no-resolver")
        failure = None
        remaining = list(self._servers)
        for _ in range(self._attempts):
            for server in tuple(remaining):
                try:
                    async with asyncio.timeout(self._timeout):
                        answer = await self._ask(server, message, query)
                except TimeoutError:
                    error = DnsError("dns-timeout")
                except OSError as reason:
                    error = DnsError("dns-unreachable", str(reason))
                except DnsError as reason:
                    error = reason
                else:
                    if _rcode(answer) not in _FAILURES:
                        self._prefer(server)
                        return answer
                    failure = answer
                    remaining.remove(server)
                    continue
                self._counters.drop(error.reason)
        if failure is not None:
            return failure
        raise error

    def _prefer(self, server: Server) -> None:
        # The list may have been replaced while the server was asked.
        if server in self._servers and self._servers[0] != server:
            self._servers.remove(server)
            self._servers.insert(0, server)

    async def _ask(self, server: Server, message: bytes, query: Query) -> bytes:
        answer = await self._ask_once(server, message, query.question)
        if query.edns and _rcode(answer) == Rcode.FORMERR:
            # RFC 6891 section 7: a server without EDNS answers FORMERR, and may know the answer.
            self._counters.count("dns-asked-without-edns")
            message = HEADER.pack(0, _flags(message), 1, 0, 0, 0) + query.question
            answer = await self._ask_once(server, message, query.question)
        _check(answer, query)
        return answer

    async def _ask_once(self, server: Server, message: bytes, question: bytes) -> bytes:
        message = secrets.token_bytes(2) + message[2:]
        answer = await self._ask_by_udp(server, message, question)
        if answer is None:
            self._counters.count("dns-asked-by-tcp")
            answer = await self._ask_by_tcp(server, message, question)
        return answer

    async def _ask_by_udp(self, server: Server, message: bytes, question: bytes) -> bytes | None:
        """Return the answer; None when it takes TCP to get one."""
        loop = asyncio.get_running_loop()
        with open_socket(server, socket.SOCK_DGRAM, self._mark) as sock:
            # Connecting chooses a random port, and leaves only this server's answers to be received.
            sock.connect(server)
            sock.send(message)
            for _ in range(MAX_WRONG_ANSWERS):
                answer = _answer_in(await loop.sock_recv(sock, MAX_MESSAGE), message, question)
                if answer is not None:
                    return None if _flags(answer) & FLAG_TRUNCATED else answer
                self._counters.drop("dns-wrong-answer")
        return None

    async def _ask_by_tcp(self, server: Server, message: bytes, question: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with open_socket(server, socket.SOCK_STREAM, self._mark) as sock:
            await loop.sock_connect(sock, server)
            await loop.sock_sendall(sock, frame(message))
            length = message_length(await _receive(sock, LENGTH_BYTES))
            answer = _answer_in(await _receive(sock, length), message, question)
        if answer is None:
            raise DnsError("dns-wrong-answer")
        return answer


class DirectResolvers:
    """The resolvers of all split domains: an :class:`UpstreamResolver` for each group that a domain names."""

    def __init__(
        self, *, counters: Counters, mark: int | None = None, timeout: float = 2.0, attempts: int = 2
    ) -> None:
        self._counters = counters
        self._mark = mark
        self._timeout = timeout
        self._attempts = attempts
        self._resolvers: dict[tuple[Server, ...], UpstreamResolver] = {}

    async def __call__(self, servers: tuple[Server, ...], message: bytes) -> bytes:
        """As :meth:`UpstreamResolver.query`, of ``servers``, a group that the configuration names."""
        resolver = self._resolvers.get(servers)
        if resolver is None:
            resolver = self._resolvers[servers] = UpstreamResolver(
                servers,
                counters=self._counters,
                mark=self._mark,
                timeout=self._timeout,
                attempts=self._attempts,
            )
        return await resolver.query(message)


def open_socket(server: Server, kind: socket.SocketKind, mark: int | None) -> socket.socket:
    """A non-blocking socket of the family of ``server``, marked unless ``mark`` is None; raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, kind)
    try:
        sock.setblocking(False)
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except BaseException:
        sock.close()
        raise
    return sock


def parse_resolv_conf(text: str) -> list[Server]:
    """The nameservers of a resolv.conf(5), at most MAX_NAMESERVERS; lines that make no sense are skipped."""
    servers: list[Server] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            ipaddress.ip_address(words[1])
        except ValueError:
            continue
        servers.append((words[1], DNS_PORT))
    return servers[:MAX_NAMESERVERS]


def _answer_in(received: bytes, message: bytes, question: bytes) -> bytes | None:
    """Return the response to ``message``, which asks ``question``, that was received; None when it is none.

    Some servers refuse with the header alone: those get the question back.
    """
    if len(received) < HEADER_LENGTH or received[:2] != message[:2]:
        return None
    identifier, flags, questions, *_ = HEADER.unpack_from(received)
    if not flags & FLAG_RESPONSE:
        return None
    if same_question(received, question):
        return received
    if questions == 0 and flags & RCODE_MASK in (Rcode.FORMERR, *_FAILURES):
        return HEADER.pack(identifier, flags & ~FLAG_TRUNCATED, 1, 0, 0, 0) + question
    return None


def _check(answer: bytes, query: Query) -> None:
    """Raise DnsError if ``answer`` is malformed; of a long one only the beginning is read.

    The caller reads it all. Reading 64 KiB here as well would let a client keep the event loop busy.
    """
    if len(answer) <= CHECKED_WHOLE:
        parse_answer(answer, query)
        return
    *_, answers, authorities, additionals = HEADER.unpack_from(answer)
    start = HEADER_LENGTH + len(query.question)
    for _ in islice(records(answer, start, (answers, authorities, additionals)), MAX_CHECKED_RECORDS):
        pass


def _flags(message: bytes) -> int:
    flags: int = HEADER.unpack_from(message)[1]
    return flags


def _rcode(message: bytes) -> int:
    return _flags(message) & RCODE_MASK


async def _receive(sock: socket.socket, count: int) -> bytes:
    """Exactly ``count`` bytes; raises DnsError(``dns-closed``) when the server sends fewer."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    while len(received) < count:
        piece = await loop.sock_recv(sock, count - len(received))
        if not piece:
            raise DnsError("dns-closed")
        received += piece
    return bytes(received)
