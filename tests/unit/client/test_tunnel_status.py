"""What a status says of the roads."""

from __future__ import annotations

import json

import pytest

from halftunnel_vpn.client.legs.circuit_breaker import Breaker
from halftunnel_vpn.client.tunnel_status import road_status
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.keys import Direction


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://a.example.org/sEcReT?key=sEcReT", "wss://a.example.org"),
        ("wss://a.example.org:8443/sEcReT", "wss://a.example.org:8443"),
        ("ws://[2001:db8::1]:80/sEcReT", "ws://[2001:db8::1]:80"),
    ],
)
def test_the_path_of_a_url_is_a_secret(url: str, shown: str) -> None:
    status = road_status(Direction.UPSTREAM, {url: Breaker(lambda: 0.5)}, [], Counters(), 0.0)
    assert status["urls"] == [shown] and status["circuits"] == ["closed"]
    assert "sEcReT" not in json.dumps(status)
