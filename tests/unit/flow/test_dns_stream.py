"""DNS over TCP, asked by a host whose TCP is scapy's packets."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from halftunnel_vpn.flow.dns_stream import IDLE, MAX_PIPELINED, MAX_UNREAD_ANSWERS, ROOM
from halftunnel_vpn.protocol.dns_framing import frame
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind

ME, RESOLVER, OWN_RESOLVER = "10.73.72.1", "8.8.8.8", "10.73.72.53"
WINDOW = 65535


class Asker:
    """The host's end of one TCP connection to port 53; it keeps count of sequence numbers."""

    def __init__(self, world, port: int = 4000, server: str = RESOLVER) -> None:
        self.world = world
        self.server = server
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
        self.says(b"".join(map(frame, messages)))

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
        self.world.host_sends(IP(src=ME, dst=self.server) / header / Raw(data))


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


def test_more_questions_than_may_be_pipelined_wait_for_answers(world, asker):
    questions = [b"query %d" % number for number in range(MAX_PIPELINED + 36)]
    asker.asks(*questions)
    assert [message for message, _, _ in world.dns.asked] == questions[:MAX_PIPELINED]
    for number in range(len(questions)):
        reply_to(world, number, b"answer %d" % number)
    assert [message for message, _, _ in world.dns.asked] == questions
    data, flags = asker.hears()
    assert data == b"".join(frame(b"answer %d" % number) for number in range(len(questions)))
    assert "R" not in flags
    assert not world.dropped


def test_questions_that_wait_close_the_window_and_answers_open_it(world, asker):
    asker.asks(*[b"query"] * MAX_PIPELINED)
    long_query = frame(bytes(60_000))
    windows = []
    for piece in (long_query, long_query, bytes(8000)):
        for start in range(0, len(piece), 1400):
            asker.says(piece[start : start + 1400])
        asker.world.pass_time(1.0)
        while world.frames:
            windows.append(world.host_gets()[TCP].window << 8)
    assert min(windows) < 4096, "the host is told to wait"
    assert len(world.dns.asked) == MAX_PIPELINED
    for number in range(2):
        reply_to(world, number, b"answer")
    opened = 0
    while world.frames:
        opened = world.host_gets()[TCP].window << 8
    assert opened > 60_000
    assert not world.dropped


def test_the_connection_closes_only_when_what_waited_is_answered(world, asker):
    asker.asks(*[b"query"] * (MAX_PIPELINED + 1))
    asker.closes()
    for number in range(MAX_PIPELINED):
        reply_to(world, number, b"answer")
    assert "F" not in asker.hears()[1]
    reply_to(world, MAX_PIPELINED, b"answer")
    assert "F" in asker.hears()[1]


def test_a_client_that_reads_nothing_is_not_answered_further(world, asker):
    """Its answers come at once, from the cache."""
    question = b"now" + bytes(600)
    fits = MAX_UNREAD_ANSWERS // (2 + 100 * len(question)) + 1
    asker.asks(*[question] * 30)
    assert len(world.dns.asked) == fits
    received = 0
    while received < 30 * (2 + 100 * len(question)):
        data, flags = asker.hears()
        assert data and "R" not in flags
        received += len(data)
        asker.acknowledge()
    assert len(world.dns.asked) == 30
    assert not world.dropped


def test_answers_that_are_read_make_room_for_more(world, asker):
    answer = bytes(60_000)
    for number in range(2 * MAX_UNREAD_ANSWERS // len(answer)):
        asker.asks(b"query")
        reply_to(world, number, answer)
        asker.hears()
        asker.acknowledge()
    assert not world.dropped


def test_a_connection_that_nobody_uses_is_closed(world, asker):
    world.pass_time(IDLE - 1)
    asker.asks(b"query")
    world.pass_time(IDLE + 1)
    assert "F" not in asker.hears()[1], "an answer is still to come"
    reply_to(world, 0, b"answer")
    world.pass_time(IDLE - 1)
    data, flags = asker.hears()
    assert (data, "F" in flags) == (frame(b"answer"), False)
    asker.acknowledge()
    world.pass_time(IDLE)
    assert "F" in asker.hears()[1]
    assert world.counters.counted["dns-connections-idle"] == 1
    asker.closes()
    world.pass_time(120)
    assert world.tracker.counts.tcp == 0


def test_a_client_that_never_closes_its_side_is_cut_off(world, asker):
    world.pass_time(IDLE)
    assert "F" in asker.hears()[1]
    asker.acknowledge()
    world.pass_time(IDLE - 1)
    assert world.tracker.counts.tcp == 1
    world.pass_time(1)
    assert "R" in asker.hears()[1]
    assert world.tracker.counts.tcp == 0
    assert world.dropped == {"dns-connection-left-open": 1}


def test_a_named_server_decides_itself_how_long_it_waits(world, asker, server):
    world.pass_time(10 * IDLE)
    assert "F" not in asker.hears()[1]
    server.handler.finished(world.now)
    assert "F" in asker.hears()[1]


def test_half_a_query_takes_room(world, asker):
    """The window that the host sees never lets it send more than fits."""
    asker.says(b"\xff\xff" + bytes(1000))
    segment = world.host_gets()[TCP]
    while world.frames:
        segment = world.host_gets()[TCP]
    assert 0 < segment.window << 8 <= ROOM


# --- what only the named server can answer --------------------------------------------------------


@pytest.fixture
def server(world, asker):
    """The stream to the server that ``asker`` has named, connected."""
    asker.asks(b"server, transfer the zone")
    world.stream.handler.opened(world.now)
    return world.stream


def test_what_concerns_the_server_is_passed_on_to_it(world, asker, server):
    assert server.request.kind is StreamKind.TCP
    assert (server.request.host, server.request.port) == (bytes((8, 8, 8, 8)), 53)
    assert server.sent == [frame(b"server, transfer the zone")]
    assert not world.dns.asked
    for piece in (b"\x00\x03on", b"e\x00\x03two\x00"):
        world.exit_sends(piece)
    assert asker.hears()[0] == frame(b"one") + frame(b"two")
    world.exit_sends(b"\x05three")
    assert asker.hears()[0] == frame(b"three")
    assert server.credited == len(frame(b"one") + frame(b"two") + frame(b"three"))


def test_our_own_resolver_is_no_other_server(world):
    asker = Asker(world, server=OWN_RESOLVER)
    asker.asks(b"server, transfer the zone")
    assert not world.streams.opened
    assert len(world.dns.asked) == 1


def test_other_questions_of_the_connection_are_answered_here(world, asker, server):
    asker.asks(b"query", b"server, once more")
    assert server.sent[1:] == [frame(b"server, once more")]
    theirs = frame(b"from the server")
    world.exit_sends(theirs[:5])
    reply_to(world, 0, b"from here")
    world.exit_sends(theirs[5:])
    assert asker.hears()[0] == frame(b"from here") + theirs


def test_a_message_waits_until_the_server_is_connected_and_has_room(world, asker):
    world.streams.room = 0
    asker.asks(b"server, one", b"query")
    assert world.stream.sent == []
    assert not world.dns.asked, "in order"
    world.stream.room = 100
    world.stream.handler.opened(world.now)
    assert world.stream.sent == [frame(b"server, one")]
    assert len(world.dns.asked) == 1


def test_a_server_that_cannot_be_reached_ends_the_connection(world, asker):
    asker.asks(b"server, one")
    world.stream.handler.refused(ResetCode.REFUSED, world.now)
    assert "R" in asker.hears()[1]
    assert world.tracker.counts.tcp == 0


@pytest.mark.parametrize("what", ["is_there", "is_lost"])
def test_without_a_session_the_connection_ends(world, asker, what):
    setattr(world.streams, what, what == "is_lost")
    asker.asks(b"server, one")
    assert "R" in asker.hears()[1]
    assert world.dropped == {"dns-server-unreachable": 1}


def test_the_end_of_either_side_reaches_the_other(world, asker, server):
    asker.closes()
    assert server.is_finished
    assert "F" not in asker.hears()[1]
    world.exit_sends(frame(b"the zone"))
    server.handler.finished(world.now)
    data, flags = asker.hears()
    assert (data, "F" in flags) == (frame(b"the zone"), True)
    asker.acknowledge()
    assert world.tracker.counts.tcp == 0


def test_a_server_that_closes_closes_the_connection(world, asker, server):
    server.handler.finished(world.now)
    assert "F" in asker.hears()[1]
    assert server.is_finished


def test_a_host_that_breaks_off_ends_the_stream_to_the_server(world, asker, server):
    asker.breaks_off()
    assert server.reset_code is not None
    assert world.tracker.counts.tcp == 0


def test_a_server_waits_for_a_client_that_does_not_read(world, asker, server):
    message = frame(bytes(60_000))
    for _ in range(20):
        world.exit_sends(message)
    assert server.credited < 8 * len(message)
    received = 0
    while received < 20 * len(message):
        data, flags = asker.hears()
        assert data and "R" not in flags
        received += len(data)
        asker.acknowledge()
    assert server.credited == 20 * len(message)
