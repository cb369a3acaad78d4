"""Every query of the client, wherever it was sent, is answered by the exit's resolver through the tunnel."""

from __future__ import annotations

import socket

import pytest
from lab.topology import (
    CLIENT,
    EXIT_UPLINK,
    LAN_RESOLVER,
    LAN_RESOLVER6,
    TARGET,
    TARGET_ADDRESS,
    TARGET_ADDRESS6,
    UPLINK,
)
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.l2 import Ether

from halftunnel_vpn.protocol.dns_framing import FrameReader, frame

pytestmark = pytest.mark.root

both_roads = pytest.mark.parametrize("road", ["+notcp", "+tcp"], ids=["UDP", "TCP"])


@both_roads
def test_addresses(dig, road):
    assert dig(f"{road} target.test A").values == [TARGET_ADDRESS]
    assert dig(f"{road} target.test AAAA").values == [TARGET_ADDRESS6]


@both_roads
def test_a_chain_of_aliases(dig, road):
    reply = dig(f"{road} www.target.test A")
    assert reply.status == "NOERROR"
    assert [(name, kind, value) for name, _, kind, value in reply.answers] == [
        ("www.target.test.", "CNAME", "web.target.test."),
        ("web.target.test.", "CNAME", "target.test."),
        ("target.test.", "A", TARGET_ADDRESS),
    ]


@both_roads
def test_a_name_that_does_not_exist(dig, road):
    reply = dig(f"{road} nobody.target.test A")
    assert reply.status == "NXDOMAIN"
    assert not reply.answers
    assert [kind for _, _, kind, _ in reply.authority] == ["SOA"]


def test_a_name_without_an_address_of_the_version_asked_for(dig):
    reply = dig("only4.target.test AAAA")
    assert (reply.status, reply.answers) == ("NOERROR", [])
    assert dig("only4.target.test A").values == [TARGET_ADDRESS]


def test_an_answer_too_long_for_udp_is_truncated_and_comes_over_tcp(dig):
    truncated = dig("+ignore big.target.test TXT")
    assert "tc" in truncated.flags
    assert not truncated.answers

    reply = dig("big.target.test TXT")
    assert "Truncated, retrying in TCP mode" in reply.text
    assert reply.values[0].replace('" "', "").strip('"') == "x" * 4000


def test_the_spelling_of_the_question_comes_back(dig):
    assert ";TaRgEt.TeSt." in dig("TaRgEt.TeSt A").text


@both_roads
@pytest.mark.parametrize(
    "server", ["8.8.8.8", "2001:db8:ffff::1", LAN_RESOLVER, LAN_RESOLVER6, "192.168.77.99", "10.73.72.53"]
)
def test_a_query_to_any_address_is_answered_by_the_exits_resolver(dig, lan_notes, server, road):
    reply = dig(f"{road} @{server} who.test TXT")
    assert reply.values == ['"target"']
    assert f"SERVER: {server}#53" in reply.text
    assert dig(f"{road} @{server} target.test A").values == [TARGET_ADDRESS]
    assert lan_notes.read_text() == ""


def test_the_exit_is_who_asks(dig, rig, asked_of_target):
    dig("asked-for-the-first-time.test A")
    asked = [line for line in asked_of_target(rig.lab) if "asked-for-the-first-time" in line]
    assert asked == [f"udp {EXIT_UPLINK} asked-for-the-first-time.test A"]


def test_the_do_bit_passes_and_comes_back(dig, rig):
    with rig.lab.inside(TARGET):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    sniffer.bind((UPLINK, 0x0800))
    sniffer.settimeout(30)

    def next_question() -> DNS:
        while True:
            packet = Ether(sniffer.recv(2000))
            if packet.haslayer(DNS) and packet[DNS].qr == 0:
                return packet[DNS]

    with sniffer:
        reply = dig("+dnssec signed.test A")
        assert "EDNS: version: 0, flags: do;" in reply.text
        assert next_question().ar[0].z == 0x8000
        reply = dig("+nodnssec +edns=0 unsigned.test A")
        assert "EDNS: version: 0, flags:;" in reply.text
        assert next_question().ar[0].z == 0


def test_the_cache_answers_and_its_ttl_counts_down(dig, rig, asked_of_target, stopwatch):
    first = dig("only6.target.test AAAA").answers[0][1]
    while (ttl := dig("only6.target.test AAAA").answers[0][1]) > first - 2:
        assert stopwatch() < 60
    assert ttl < first <= 60
    asked = [line for line in asked_of_target(rig.lab) if line.endswith("only6.target.test AAAA")]
    assert len(asked) == 1


@pytest.mark.parametrize("verdict", ["drop", "reject"])
def test_a_dead_resolver_of_the_exit_is_a_server_failure_before_long(dig, deaf_target, verdict):
    with deaf_target(verdict):
        reply = dig(f"{verdict}.nobody-has-asked-for-this.test A")
        assert reply.status == "SERVFAIL", "and not dig's own time-out"
    assert dig(f"{verdict}.nobody-has-asked-for-this.test A").status == "NXDOMAIN"


def test_programs_find_names_through_resolv_conf(rig):
    assert "nameserver 10.73.72.53" in rig.client("cat /etc/resolv.conf")
    found = rig.client("getent ahosts www.target.test")
    assert {line.split()[0] for line in found.splitlines()} == {TARGET_ADDRESS, TARGET_ADDRESS6}
    program = "import socket; print(sorted({a[4][0] for a in socket.getaddrinfo('target.test', 80)}))"
    assert rig.client(f'python3 -c "{program}"').strip() == str(sorted([TARGET_ADDRESS, TARGET_ADDRESS6]))
    assert len(rig.client("curl -sS http://www.target.test/small.txt")) == 1000


def test_many_questions_over_one_connection(dig):
    words = " ".join(f"{kind} target.test" for kind in ("A", "AAAA", "TXT") * 10)
    text = dig(f"+tcp +keepopen +noall +answer {words}").text
    assert text.count(TARGET_ADDRESS6) == 10
    assert text.count("the target's own answer") == 10
    assert text.count("IN\tA\t" + TARGET_ADDRESS) == 10


def test_many_questions_at_once(rig):
    """From one socket, as a busy resolver asks: an answer for each, to whom it belongs."""
    with rig.lab.inside(CLIENT):
        app = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # nobody reads while all is sent
        app.settimeout(60)
        app.connect(("9.9.9.9", 53))
        questions = {}
        for number in range(200):
            query = DNS(id=number, qd=DNSQR(qname=f"host{number}.crowd.test"))
            questions[number] = query.qd[0].qname
            app.send(bytes(query))
        for _ in range(200):
            reply = DNS(app.recv(4096))
            assert questions.pop(reply.id) == reply.qd[0].qname
            assert reply.rcode == 3
    assert not questions


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (b"\x12\x34\x01\x00" + bytes(8), b"\x12\x34\x81\x81"),  # no question: format error
        (b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\xc0\x0c\x00\x01\x00\x01", b"\x12\x34\x81\x81"),
    ],
)
def test_malformed_questions_are_refused(rig, query, answer):
    with rig.lab.inside(CLIENT):
        app = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with app:
        app.settimeout(30)
        app.connect(("8.8.4.4", 53))
        app.send(query)
        assert app.recv(512)[:4] == answer


@pytest.mark.parametrize("words", ["+norecurse", "+norecurse +tcp", "-c CH"])
def test_what_only_the_named_server_can_answer_is_answered_by_it(dig, words):
    assert "aa" in dig(f"{words} @{TARGET_ADDRESS} target.test A").flags, "the server itself has authority"
    assert "aa" not in dig(f"@{TARGET_ADDRESS} target.test A").flags


@both_roads
def test_an_update_reaches_the_named_server_and_not_the_resolver(rig, asked_of_target, road):
    update = b"\x12\x34\x28\x00\x00\x01" + bytes(6) + b"\x07dynamic\x04test\x00\x00\x06\x00\x01"
    kind = socket.SOCK_STREAM if road == "+tcp" else socket.SOCK_DGRAM
    with rig.lab.inside(CLIENT):
        app, own = (socket.socket(socket.AF_INET, kind) for _ in range(2))
    with app, own:
        for sock, server in ((app, TARGET_ADDRESS), (own, "10.73.72.53")):
            sock.settimeout(30)
            sock.connect((server, 53))
            sock.sendall(frame(update) if road == "+tcp" else update)
        skip = 2 if road == "+tcp" else 0
        assert app.recv(512, socket.MSG_WAITALL if skip else 0)[skip : skip + 4] == b"\x12\x34\x84\x84"
        assert own.recv(512, 0)[skip : skip + 4] == b"\x12\x34\xa8\x84", "not implemented"
    way = "tcp" if road == "+tcp" else "udp"
    assert f"{way} {EXIT_UPLINK} dynamic.test SOA" in asked_of_target(rig.lab)


def test_a_hundred_questions_at_once_over_one_connection(rig):
    with rig.lab.inside(CLIENT):
        app = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with app:
        app.settimeout(60)
        app.connect(("8.8.8.8", 53))
        names = [b"pipelined%03d" % number for number in range(100)]
        question = b"\x01\x00\x00\x01" + bytes(6) + b"\x0c%b\x06target\x04test\x00\x00\x01\x00\x01"
        app.sendall(b"".join(frame(b"%b" % name[-2:] + question % name) for name in names))
        reader, answered = FrameReader(), set()
        while len(answered) < 100:
            data = app.recv(65536)
            assert data, f"closed after {len(answered)} answers"
            reader.feed(data)
            while (answer := reader.take()) is not None:
                answered.add(answer[:2])
        assert answered == {name[-2:] for name in names}


def test_what_is_no_question_gets_no_answer_and_is_counted(rig):
    before = rig.dropped()
    with rig.lab.inside(CLIENT):
        app = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with app:
        app.settimeout(30)
        app.connect(("8.8.4.4", 53))
        app.send(b"short")
        app.send(b"\x00\x01\x81\x80" + bytes(8))  # a response: two resolvers would answer one another forever
        app.send(b"\x12\x34\x01\x00" + bytes(8))
        assert app.recv(512)[:2] == b"\x12\x34"
    after = rig.dropped()
    for reason in ("dns-too-short", "dns-not-a-query"):
        assert after.get(reason, 0) == before.get(reason, 0) + 1
