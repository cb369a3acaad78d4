"""What a configuration may say, and what becomes of it at the handshake."""

from __future__ import annotations

from typing import Any

import pytest

from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig
from halftunnel_vpn.flow.tcp.syn_options import MINIMUM_MSS, negotiate
from halftunnel_vpn.inet.tcp import SYN, HeaderTemplate, TcpSegment

V4 = HeaderTemplate(b"\x0a\0\0\1", 80, b"\x0a\0\0\2", 40000)
V6 = HeaderTemplate(bytes(15) + b"\2", 80, bytes(15) + b"\3", 40000)


def syn(mss: int | None = 1460, scale: int | None = 7, sack: bool = True) -> TcpSegment:
    return TcpSegment(40000, 80, 1, 0, SYN, 64240, mss, scale, sack, (), memoryview(b""))


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_scale": 15},
        {"window_scale": -1},
        {"mss_v4": 0},
        {"mss_v6": 65536},
        {"rto_min": 0.0},
        {"rto_min": 2.0},
        {"rto_max": 0.5},
        {"max_window": 0},
    ],
)
def test_values_that_tcp_has_no_room_for_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TcpEndpointConfig(**wrong)


def test_the_agreement_takes_what_both_can() -> None:
    agreement = negotiate(syn(), V4, TcpEndpointConfig())
    assert (agreement.mss, agreement.peer_shift, agreement.own_shift, agreement.sack) == (1460, 7, 8, True)
    assert agreement.frame_limit == 65535 - 40
    assert agreement.options.hex() == "020405b401010402" + "01030308"


def test_the_agreement_with_a_host_that_offers_nothing() -> None:
    agreement = negotiate(syn(None, None, False), V4, TcpEndpointConfig())
    assert (agreement.mss, agreement.peer_shift, agreement.own_shift, agreement.sack) == (536, 0, 0, False)
    assert agreement.options.hex() == "020405b4"


def test_the_agreement_over_ipv6() -> None:
    agreement = negotiate(syn(None, 0), V6, TcpEndpointConfig(mss_v6=8000))
    assert (agreement.mss, agreement.peer_shift, agreement.own_shift) == (1220, 0, 8)
    assert agreement.frame_limit == 65535 - 60
    assert agreement.options[:4].hex() == "02041f40"


@pytest.mark.parametrize("mss", [0, 1, 87])
def test_tiny_segments_are_not_made(mss: int) -> None:
    assert negotiate(syn(mss), V4, TcpEndpointConfig()).mss == MINIMUM_MSS
