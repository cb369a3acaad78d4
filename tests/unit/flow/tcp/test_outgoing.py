"""Answers to segments that belong to nobody (RFC 9293, 3.10.7.1), read by scapy."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP

from halftunnel_vpn.flow.tcp import answer_stray
from halftunnel_vpn.inet import tcp, vnet

TEMPLATE = tcp.HeaderTemplate(b"\x0a\0\0\1", 80, b"\x0a\0\0\2", 40000)


def stray(flags: int, payload: bytes = b"") -> tcp.TcpSegment:
    return tcp.TcpSegment(
        40000, 80, 0xFFFF_FFFF, 777, flags, 1000, None, None, False, (), memoryview(payload)
    )


@pytest.mark.parametrize(
    ("flags", "payload", "answer"),
    [
        (tcp.ACK, b"data", ("R", 777, 0)),
        (tcp.SYN | tcp.ACK, b"", ("R", 777, 0)),
        (tcp.SYN, b"", ("RA", 0, 0)),
        (tcp.FIN, b"abc", ("RA", 0, 3)),
    ],
)
def test_the_reset_fits_the_segment(flags: int, payload: bytes, answer: tuple[str, int, int]) -> None:
    frame = answer_stray(stray(flags, payload), TEMPLATE)
    assert frame is not None
    reset = IP(frame[vnet.VNET_HEADER_LENGTH :])[TCP]
    assert (str(reset.flags), reset.seq, reset.ack) == answer
    assert (reset.sport, reset.dport) == (80, 40000)


def test_a_reset_is_never_answered() -> None:
    assert answer_stray(stray(tcp.RST), TEMPLATE) is None
    assert answer_stray(stray(tcp.RST | tcp.ACK), TEMPLATE) is None
