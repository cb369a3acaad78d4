"""Names that the exit resolves for its clients, and their queries."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from dnslib import DNSRecord

from halftunnel_vpn.dns.turns import TurnLimits
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.protocol.datagram import (
    ErrorRun,
    decode_run,
    encode_run_header,
)
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind
from halftunnel_vpn.server import relay_dns
from halftunnel_vpn.server.egress import EgressPolicy
from halftunnel_vpn.session.datagram_stream import DatagramStream
from halftunnel_vpn.session.memory_budget import Memory

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # sockets of both loops: test_socket_watch.py

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


@pytest.fixture
def tunnel(in_memory, resolver):
    """Loopback is allowed; names are what ``resolver`` says."""
    return in_memory(resolvers=[resolver.endpoint])


def packed(*texts):
    return [ipaddress.ip_address(text).packed for text in texts]


# --- resolving ---------------------------------------------------------------------------------------


async def test_addresses_come_by_turns_ipv6_first(tunnel, resolver):
    resolver.addresses["both.test"] = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.3"]
    assert await tunnel.nat.addresses_of("laptop", "both.test") == packed(
        "2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"
    )
    assert sorted(type_ for _, type_ in resolver.asked) == ["A", "AAAA"]


async def test_streams_that_need_one_name_at_once_share_its_questions(tunnel, resolver):
    resolver.addresses["busy.test"] = ["192.0.2.1"]
    asking = [tunnel.nat.addresses_of("laptop", name) for name in ("busy.test", "BUSY.test") * 500]
    first = asyncio.create_task(tunnel.nat.addresses_of("laptop", "busy.test"))
    await asyncio.sleep(0)
    first.cancel()  # who gives up takes nothing from the others
    assert await asyncio.gather(*asking) == [packed("192.0.2.1")] * 1000
    assert len(resolver.asked) == 2
    with pytest.raises(DnsError, match="dns-no-such-name"):
        await asyncio.gather(*(tunnel.nat.addresses_of("laptop", "nothing.test") for _ in range(1000)))
    assert len(resolver.asked) == 4
    await tunnel.nat.addresses_of("laptop", "busy.test")
    assert len(resolver.asked) == 6  # nothing is remembered


async def test_without_ipv6_nobody_asks_for_it(in_memory, resolver):
    tunnel = in_memory(resolvers=[resolver.endpoint], has_ipv6=lambda: False)
    resolver.addresses["both.test"] = ["192.0.2.1", "2001:db8::1"]
    assert await tunnel.nat.addresses_of("laptop", "both.test") == packed("192.0.2.1")
    assert resolver.asked == [("both.test", "A")]


async def test_a_name_without_addresses_has_none(tunnel, resolver):
    resolver.addresses["empty.test"] = []
    assert await tunnel.nat.addresses_of("laptop", "empty.test") == []


async def test_a_name_that_does_not_exist_is_an_error(tunnel):
    with pytest.raises(DnsError, match="dns-no-such-name"):
        await tunnel.nat.addresses_of("laptop", "nothing.test")


async def test_one_family_is_enough_when_the_other_cannot_be_asked(tunnel, resolver):
    resolver.addresses["half.test"] = ["192.0.2.1"]
    answer = resolver.datagram_received

    def deaf_to_ipv6(data, address):
        if DNSRecord.parse(data).q.qtype == 1:
            answer(data, address)

    resolver.datagram_received = deaf_to_ipv6
    assert await tunnel.nat.addresses_of("laptop", "half.test") == packed("192.0.2.1")


# --- TCP by name -------------------------------------------------------------------------------------


async def test_a_stream_by_name_reaches_its_destination(tunnel, resolver, listening):
    resolver.addresses["here.test"] = ["127.0.0.1"]
    user = tunnel.open("here.test", listening().getsockname()[1])
    await user.heard("opened")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::1"],
)
async def test_a_name_that_resolves_to_what_is_denied_is_denied(in_memory, resolver, counters, address):
    tunnel = in_memory(resolvers=[resolver.endpoint], policy=EgressPolicy())
    resolver.addresses["sly.test"] = [address]
    user = tunnel.open("sly.test", 80)
    await user.heard("refused DENIED")
    assert counters.dropped == {"egress-denied": 1} and not counters.counted["dials"]


async def test_of_a_name_with_both_only_what_is_permitted_is_tried(in_memory, resolver, listening, counters):
    policy = EgressPolicy(allow=[ipaddress.ip_network("127.0.0.2/32")])
    tunnel = in_memory(resolvers=[resolver.endpoint], policy=policy)
    denied = listening("127.0.0.1")
    denied.setblocking(False)
    permitted = listening("127.0.0.2", denied.getsockname()[1])
    resolver.addresses["mixed.test"] = ["127.0.0.1", "::1", "127.0.0.2"]
    user = tunnel.open("mixed.test", permitted.getsockname()[1])
    await user.heard("opened")
    with pytest.raises(BlockingIOError):
        denied.accept()
    assert not counters.dropped


@pytest.mark.parametrize("name", ["nothing.test", "empty.test", "silent.test"])
async def test_a_name_without_an_address_is_told(tunnel, resolver, name):
    resolver.addresses["empty.test"] = []
    user = tunnel.open(name, 80)
    await user.heard("refused NAME_NOT_FOUND")
    await tunnel.idle()


async def test_a_stream_given_up_while_its_name_is_asked_for_is_never_dialled(
    tunnel, resolver, listening, counters, until
):
    resolver.addresses["here.test"] = ["127.0.0.1"]
    held = []
    resolver.datagram_received, answer = lambda *datagram: held.append(datagram), resolver.datagram_received
    user = tunnel.open("here.test", listening().getsockname()[1])
    await until(lambda: len(held) == 2)
    user.stream.reset(ResetCode.NORMAL)
    await tunnel.idle()
    for datagram in held:
        answer(*datagram)
    await asyncio.sleep(0.05)
    assert not counters.counted["dials"] and not counters.dropped


# --- DNS streams -------------------------------------------------------------------------------------


def framed(query):
    return len(query).to_bytes(2, "big") + query


@pytest.fixture
def query():
    return DNSRecord.question("here.test").pack()


async def test_a_query_is_answered_in_one_stream(tunnel, resolver, query):
    resolver.addresses["here.test"] = ["192.0.2.9"]
    user = tunnel.open(b"", 0, StreamKind.DNS)
    user.stream.send(framed(query))
    user.stream.finish()
    await user.heard("finished")
    length = int.from_bytes(user.received[:2], "big")
    answer = DNSRecord.parse(bytes(user.received[2:]))
    assert length == len(user.received) - 2
    assert answer.header.id == DNSRecord.parse(query).header.id
    assert [str(record.rdata) for record in answer.rr] == ["192.0.2.9"]
    await tunnel.idle()


async def test_a_query_may_come_byte_by_byte(tunnel, resolver, query):
    resolver.addresses["here.test"] = ["192.0.2.9"]
    user = tunnel.open(b"", 0, StreamKind.DNS)
    await user.heard("opened")
    for byte in framed(query):
        user.stream.send(bytes([byte]))
        await asyncio.sleep(0)
    await user.heard("finished")
    assert b"\xc0\x00\x02\x09" in user.received


async def test_what_follows_a_query_is_not_kept(tunnel, resolver, query, until):
    user = tunnel.open(b"", 0, StreamKind.DNS)
    resolver.datagram_received = lambda *datagram: None
    user.stream.send(framed(query))
    await user.heard("opened")
    relay = tunnel.exit.streams[1].handler
    sent = 0
    while sent < 3_000_000:
        await user.until(lambda: user.stream.room)
        user.stream.send(bytes(min(user.stream.room, 60_000)))
        sent += 60_000
    await until(lambda: not user.stream.sending.unsent)
    assert len(relay._reader) < 200_000
    user.stream.reset(ResetCode.NORMAL)


async def test_a_stream_that_asks_nothing_is_an_error(tunnel, query):
    user = tunnel.open(b"", 0, StreamKind.DNS)
    user.stream.send(framed(query)[:-1])
    user.stream.finish()
    await user.until(lambda: "aborted PROTOCOL_ERROR" in user.events)
    await tunnel.idle()


@pytest.mark.parametrize("message", [b"", b"\0" * 5, b"\0" * 12])
async def test_a_query_that_is_none(tunnel, counters, message):
    user = tunnel.open(b"", 0, StreamKind.DNS)
    user.stream.send(framed(message))
    await user.until(lambda: "aborted HOST_UNREACHABLE" in user.events)
    assert sum(counters.dropped.values()) == 1


async def test_a_resolver_that_is_silent_is_told(tunnel):
    user = tunnel.open(b"", 0, StreamKind.DNS)
    user.stream.send(framed(DNSRecord.question("silent.test").pack()))
    await user.until(lambda: "aborted HOST_UNREACHABLE" in user.events)


async def test_a_client_that_gave_up_gets_no_answer(tunnel, resolver, query, until):
    held = []
    resolver.datagram_received, answer = lambda *datagram: held.append(datagram), resolver.datagram_received
    user = tunnel.open(b"", 0, StreamKind.DNS)
    user.stream.send(framed(query))
    await until(lambda: held)
    user.stream.reset(ResetCode.TIMED_OUT)
    await tunnel.idle()
    answer(*held[0])
    await asyncio.sleep(0.05)
    assert not user.received


# --- datagrams ---------------------------------------------------------------------------------------


@pytest.fixture
def udp():
    """A UDP socket on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


async def receive(sock):
    """A datagram and its source; uvloop has no sock_recvfrom."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(sock.fileno(), lambda: readable.done() or readable.set_result(None))
    try:
        async with asyncio.timeout(30):
            await readable
    finally:
        loop.remove_reader(sock.fileno())
    return sock.recvfrom(65536)


async def runs(user, count=1):
    await user.until(lambda: len(user.events) >= count)
    return [decode_run(run) for run in user.runs]


async def test_datagrams_by_address_and_by_name_leave_one_socket(tunnel, resolver, udp):
    resolver.addresses["here.test"] = ["127.0.0.1"]
    port = udp.getsockname()[1]
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header(b"\x7f\0\0\1", port), b"by address")
    data, source = await receive(udp)
    user.stream.send(encode_run_header("here.test", port), b"by name")
    again, other_source = await receive(udp)
    assert (data, again) == (b"by address", b"by name") and source == other_source
    udp.sendto(b"answer", source)
    (run,) = await runs(user)
    assert (run.address, run.port, bytes(run.data)) == ("here.test", port, b"answer")


async def test_a_denied_datagram_is_told_as_an_error(in_memory, udp, counters):
    tunnel = in_memory(policy=EgressPolicy())
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header(b"\x7f\0\0\1", udp.getsockname()[1]), b"x")
    (run,) = await runs(user)
    assert run == ErrorRun(IcmpErrorKind.ADMIN_PROHIBITED, b"", b"\x7f\0\0\1", udp.getsockname()[1])
    assert counters.dropped == {"egress-denied": 1}
    with pytest.raises(BlockingIOError):
        udp.recv(10)


async def test_a_closed_port_is_told_as_an_error(tunnel, udp):
    port = udp.getsockname()[1]
    udp.close()
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header(b"\x7f\0\0\1", port), b"x")
    (run,) = await runs(user)
    assert run == ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, b"\x7f\0\0\1", b"\x7f\0\0\1", port)


async def test_datagram_streams_have_a_bound_too(in_memory):
    tunnel = in_memory(streams_per_client=1)
    users = [tunnel.open(b"", 0, StreamKind.UDP) for _ in range(2)]
    await users[1].heard("refused LIMIT")
    assert not users[0].events


async def test_a_datagram_stream_that_is_idle_is_forgotten(in_memory, udp):
    tunnel = in_memory(udp_idle=0.1)
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header(b"\x7f\0\0\1", udp.getsockname()[1]), b"x")
    await receive(udp)
    await user.heard("aborted NORMAL")
    await tunnel.idle()


# --- bounds ------------------------------------------------------------------------------------------


async def test_a_client_has_only_so_many_questions_open_at_once(in_memory, resolver, until):
    limits = TurnLimits(per_client=3, total=9, reserve=0, waiting_per_client=3, waiting=9)
    tunnel = in_memory(resolvers=[resolver.endpoint], turns=limits, has_ipv6=lambda: False)
    turns = tunnel.nat.resolver.turns
    asked = [asyncio.ensure_future(tunnel.nat.addresses_of("greedy", f"silent{n}.test")) for n in range(6)]
    await until(lambda: turns.waiting == 3)
    with pytest.raises(DnsError, match="dns-client-limit"):
        await tunnel.nat.addresses_of("greedy", "here.test")
    with pytest.raises(DnsError, match="dns-no-such-name"):
        await tunnel.nat.addresses_of("modest", "nothing.test")
    await asyncio.gather(*asked, return_exceptions=True)
    assert (turns.under_way, turns.waiting) == (0, 0)


def silent(*datagram):
    """For a resolver that never answers."""


def ask_by_dns_stream(tunnel):
    user = tunnel.open(b"", 0, StreamKind.DNS)
    user.stream.send(framed(DNSRecord.question("here.test").pack()))
    return user


def ask_by_tcp_stream(tunnel):
    return tunnel.open("here.test", 80)


def ask_by_datagram(tunnel):
    user = tunnel.open(b"", 0, StreamKind.UDP)
    user.stream.send(encode_run_header("here.test", 80), b"x")
    return user


@pytest.mark.parametrize("ask", [ask_by_dns_stream, ask_by_tcp_stream, ask_by_datagram])
async def test_the_question_of_a_stream_that_is_gone_is_cancelled(in_memory, resolver, until, counters, ask):
    tunnel = in_memory(resolvers=[resolver.endpoint], resolver_timeout=600.0)
    turns = tunnel.nat.resolver.turns
    resolver.datagram_received = silent
    user = ask(tunnel)
    await until(lambda: turns.under_way)
    if isinstance(user.stream, DatagramStream):
        user.stream.close()
    else:
        user.stream.reset(ResetCode.TIMED_OUT)
    await until(lambda: not turns.under_way)
    await tunnel.idle()
    assert not counters.dropped


async def test_a_long_answer_is_refused_where_memory_has_run_out(in_memory, resolver, counters, query):
    """An answer is sent in one piece, whatever credit the client has given."""
    resolver.addresses["here.test"] = [f"192.0.2.{n % 250}" for n in range(1200)]
    memory = Memory(1 << 20)
    memory.take(memory.limit - 64 * 1024)
    tunnel = in_memory(resolvers=[resolver.endpoint], memory=memory, resolver_timeout=30.0)
    user = tunnel.open(b"", 0, StreamKind.DNS)
    user.stream.send(framed(query))
    await user.heard("opened")
    await user.until(lambda: "aborted LIMIT" in user.events)
    assert counters.dropped["dns-answer-memory-full"] == 1


async def test_a_query_that_says_it_is_longer_than_any_is_refused_at_once(tunnel, counters):
    user = tunnel.open(b"", 0, StreamKind.DNS)
    user.stream.send((relay_dns.MAX_QUERY + 1).to_bytes(2, "big") + bytes(100))
    await user.heard("refused PROTOCOL_ERROR")
    assert counters.dropped == {"dns-query-too-long": 1}
    await tunnel.idle()
