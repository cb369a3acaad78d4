"""What the leak test takes for a reply to a connection from outside: exactly that."""

from __future__ import annotations

from typing import Any

import pytest
from lab.leaks.capture import Conversations
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

CLIENT, CALLER = "10.77.1.2", "203.0.113.9"
CLIENT6, CALLER6 = "fd77:1::2", "2001:db8:9::9"

CALLS = {
    "tcp": (
        IP(src=CALLER, dst=CLIENT) / TCP(sport=4000, dport=22, flags="S"),
        IP(src=CLIENT, dst=CALLER) / TCP(sport=22, dport=4000, flags="SA"),
    ),
    "tcp6": (
        IPv6(src=CALLER6, dst=CLIENT6) / TCP(sport=4000, dport=22, flags="S"),
        IPv6(src=CLIENT6, dst=CALLER6) / TCP(sport=22, dport=4000, flags="A"),
    ),
    "udp": (
        IP(src=CALLER, dst=CLIENT) / UDP(sport=4000, dport=5000) / b"?",
        IP(src=CLIENT, dst=CALLER) / UDP(sport=5000, dport=4000) / b"!",
    ),
    "ping": (
        IP(src=CALLER, dst=CLIENT) / ICMP(type=8, id=7, seq=1),
        IP(src=CLIENT, dst=CALLER) / ICMP(type=0, id=7, seq=1),
    ),
    "ping6": (
        IPv6(src=CALLER6, dst=CLIENT6) / ICMPv6EchoRequest(id=7, seq=1),
        IPv6(src=CLIENT6, dst=CALLER6) / ICMPv6EchoReply(id=7, seq=1),
    ),
}
LEAKS = {
    "a connection of its own": (
        *CALLS["tcp"][:1],
        IP(src=CLIENT, dst=CALLER) / TCP(sport=22, dport=4000, flags="S"),
    ),
    "another port": (*CALLS["tcp"][:1], IP(src=CLIENT, dst=CALLER) / TCP(sport=23, dport=4000, flags="A")),
    "an answer from outside to a connection of its own": (
        IP(src=CALLER, dst=CLIENT) / TCP(sport=80, dport=4000, flags="SA"),
        IP(src=CLIENT, dst=CALLER) / TCP(sport=4000, dport=80, flags="A"),
    ),
    "a datagram to another port": (
        *CALLS["udp"][:1],
        IP(src=CLIENT, dst=CALLER) / UDP(sport=5000, dport=4001) / b"!",
    ),
    "a later fragment": (
        *CALLS["udp"][:1],
        IP(src=CLIENT, dst=CALLER, frag=100, proto=17) / (b"!" * 100),
    ),
    "a ping of its own": (*CALLS["ping"][:1], IP(src=CLIENT, dst=CALLER) / ICMP(type=8, id=7, seq=1)),
    "a reply to no ping": (*CALLS["ping"][:1], IP(src=CLIENT, dst=CALLER) / ICMP(type=0, id=7, seq=2)),
    "a reply to somebody else": (
        *CALLS["udp"][:1],
        IP(src=CLIENT, dst="203.0.113.10") / UDP(sport=5000, dport=4000) / b"!",
    ),
}


def framed(packet: Any) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)


@pytest.mark.parametrize("name", CALLS)
def test_a_reply_is_known_once_the_call_was_seen(name: str) -> None:
    call, reply = map(framed, CALLS[name])
    begun = Conversations([(10.0, call)])
    assert str(begun.why_reply(10.5, reply)).startswith("replies to ")
    assert begun.why_reply(9.5, reply) is None
    assert Conversations([]).why_reply(10.5, reply) is None


@pytest.mark.parametrize("name", LEAKS)
def test_what_is_no_reply_is_a_leak(name: str) -> None:
    call, sent = map(framed, LEAKS[name])
    assert Conversations([(10.0, call)]).why_reply(10.5, sent) is None
