"""DNS over TCP, asked by a host whose TCP is scapy's packets."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from halftunnel_vpn.flow.dns_stream import MAX_PIPELINED, MAX_UNREAD_ANSWERS, ROOM

ME, RESOLVER = "10.73.72.1", "8.8.8.8"
WINDOW = 65535


class Asker:
    """The host's end of one TCP connection to port 53; it keeps count of sequence numbers."""

    def __init__(self, world, port: int = 4000) -> None:
        self.world = world
        self.port = port
        self.sent = 1000
        self.received = 0
        self._send("S", options=[("MSS", 1460), ("WScale", 10)])
        self.sent += 1
        answer = world.host_gets()[TCP]
        assert answer.flags == "SA"
        self.received = answer.seq + 1
        self.acknowledge()

    def says(self, data: bytes) -> None:
        self._send("PA", data)
        self.sent += len(data)

    def asks(self, *messages: bytes) -> None:
        self.says(b"".join(len(message).to_bytes(2, "big") + message for message in messages))

    def acknowledge(self) -> None:
        self._send("A")

    def closes(self) -> None:
        self._send("FA")
        self.sent += 1

    def breaks_off(self) -> None:
        self._send("R")

    def hears(self) -> tuple[bytes, str]:
        """Everything that the host was given since: the data, and the flags of the last segment."""
        data, flags = b"", ""
        while self.world.frames:
            segment = self.world.host_gets()[TCP]
            payload = bytes(segment.payload)
            if segment.seq == self.received:
                data += payload
                self.received += len(payload) + ("F" in segment.flags)
            flags = str(segment.flags)
        return data, flags

    def _send(self, flags: str, data: bytes = b"", options: list | None = None) -> None:
        header = TCP(
            sport=self.port, dport=53, seq=self.sent, ack=self.received, flags=flags, window=WINDOW,
            options=options or [],
        )  # fmt: skip
        self.world.host_sends(IP(src=ME, dst=RESOLVER) / header / Raw(data))


@pytest.fixture
def asker(world) -> Asker:
    return Asker(world)


def reply_to(world, number: int, answer: bytes) -> None:
    world.dns.asked[number][1](answer)


def test_a_query_is_asked_and_its_answer_framed(world, asker):
    asker.asks(b"the query")
    ((message, _, stream),) = world.dns.asked
    assert (message, stream) == (b"the query", True)
    reply_to(world, 0, b"the answer")
    assert asker.hears()[0] == b"\x00\x0athe answer"
    assert not world.streams.opened


def test_a_query_in_pieces_is_asked_when_it_is_whole(world, asker):
    for piece in (b"\x00", b"\x09the", b" que"):
        asker.says(piece)
        assert not world.dns.asked
    asker.says(b"ry")
    assert world.dns.asked[0][0] == b"the query"


def test_several_queries_in_one_segment_are_answered_in_any_order(world, asker):
    asker.asks(b"one", b"two", b"three")
    assert [message for message, _, _ in world.dns.asked] == [b"one", b"two", b"three"]
    reply_to(world, 2, b"3")
    reply_to(world, 0, b"1")
    reply_to(world, 1, b"2")
    assert asker.hears()[0] == b"\x00\x013\x00\x011\x00\x012"


def test_the_connection_closes_when_everything_is_answered(world, asker):
    asker.asks(b"one", b"two")
    asker.closes()
    reply_to(world, 0, b"1")
    data, flags = asker.hears()
    assert data == b"\x00\x011"
    assert "F" not in flags
    reply_to(world, 1, b"2")
    data, flags = asker.hears()
    assert data == b"\x00\x012"
    assert "F" in flags
    asker.acknowledge()
    assert world.tracker.counts.tcp == 0


def test_a_host_that_closes_without_a_question_is_let_go(world, asker):
    asker.hears()
    asker.closes()
    assert "F" in asker.hears()[1]


def test_who_sends_what_gets_no_answer_is_not_waited_for(world, asker):
    world.dns.is_deaf = True
    asker.asks(b"")
    assert "R" in asker.hears()[1]
    assert world.tracker.counts.tcp == 0
    assert world.counters.dropped["dns-no-question"] == 1


def test_an_answer_after_a_reset_goes_nowhere(world, asker):
    asker.asks(b"one")
    asker.breaks_off()
    asker.hears()
    reply_to(world, 0, b"1")
    assert not world.frames
    assert world.tracker.counts.tcp == 0


def test_an_answer_after_the_end_of_the_session_goes_nowhere(world, asker):
    asker.asks(b"one")
    asker.hears()
    world.tracker.session_lost(world.now)
    assert "R" in asker.hears()[1]
    reply_to(world, 0, b"1")
    assert not world.frames


def test_too_many_questions_without_an_answer_break_the_connection_off(world, asker):
    asker.asks(*[b"query"] * MAX_PIPELINED)
    assert "R" not in asker.hears()[1]
    asker.asks(b"one too many", b"and another")
    assert "R" in asker.hears()[1]
    assert world.dropped == {"dns-too-many-pipelined": 1}
    assert len(world.dns.asked) == MAX_PIPELINED
    assert world.tracker.counts.tcp == 0
    reply_to(world, 0, b"too late")
    assert not world.frames


def test_answers_that_nobody_reads_break_the_connection_off(world, asker):
    answer = bytes(60_000)
    fits = MAX_UNREAD_ANSWERS // (2 + len(answer))
    asker.asks(*[b"query"] * (fits + 1))
    for number in range(fits):
        reply_to(world, number, answer)
    assert not world.dropped
    reply_to(world, fits, answer)
    assert world.dropped == {"dns-answers-unread": 1}
    assert world.tracker.counts.tcp == 0


def test_answers_that_are_read_make_room_for_more(world, asker):
    answer = bytes(60_000)
    for number in range(2 * MAX_UNREAD_ANSWERS // len(answer)):
        asker.asks(b"query")
        reply_to(world, number, answer)
        asker.hears()
        asker.acknowledge()
    assert not world.dropped


def test_half_a_query_takes_room(world, asker):
    """The window that the host sees never lets it send more than fits."""
    asker.says(b"\xff\xff" + bytes(1000))
    segment = world.host_gets()[TCP]
    while world.frames:
        segment = world.host_gets()[TCP]
    assert 0 < segment.window << 8 <= ROOM
