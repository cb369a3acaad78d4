"""Sockets of legs as the kernel reports them: congestion control, and what may wait unsent."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.transport.sockets import NOTSENT_LOWAT
from halftunnel_vpn.transport.unsent import LOOK_EVERY, MAX_NOTSENT, bound_for

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
DEFAULT = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def control_of(leg) -> str:
    sock = leg._transport.get_extra_info("socket")
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


@pytest.mark.parametrize("name", ALLOWED)
async def test_both_ends_of_a_leg_have_what_was_asked_for(start_exit, recorder, name):
    exit_server = await start_exit(congestion=name)
    leg = await exit_server.dial(recorder(), congestion=name)
    other = await exit_server.arrived()
    assert control_of(leg) == control_of(await other.opened()) == name


async def test_what_the_kernel_does_not_have_is_counted_and_gone_without(start_exit, recorder):
    counters = Counters()
    exit_server = await start_exit(congestion="nonesuch", counters=counters)
    assert counters.counted["congestion-control-refused"] == 1
    leg = await exit_server.dial(recorder(), congestion="nonesuch")
    other = await exit_server.arrived()
    assert control_of(leg) == control_of(await other.opened()) == DEFAULT


@pytest.mark.parametrize(
    ("rate", "round_trip", "expected"),
    [
        (0, 0.0, NOTSENT_LOWAT),
        (2.5e6, 0.050, NOTSENT_LOWAT),  # 20 Mbit/s: 4 ms are 10 kB
        (25e6, 0.050, 100_000),  # 200 Mbit/s: 4 ms
        (25e6, 0.016, 50_000),  # an eighth of a short round trip
        (1.25e9, 0.0001, NOTSENT_LOWAT),  # next door
        (1.25e9, 0.100, MAX_NOTSENT),
    ],
)
def test_what_may_wait_unsent_lasts_until_the_sender_is_awake(rate, round_trip, expected):
    assert bound_for(rate, round_trip) == expected


async def test_the_bound_is_looked_at_again_and_again(start_exit):
    exit_server = await start_exit()
    leg, _, _, other = await exit_server.pair()
    sock = leg._transport.get_extra_info("socket")
    sent = 0
    while sent < 3 * LOOK_EVERY:
        leg.send(bytes(65_000))
        sent += 65_000
        await other.received(sent // 65_000)
    assert leg._unsent.next_look > 3 * LOOK_EVERY
    bound = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    assert NOTSENT_LOWAT <= bound <= MAX_NOTSENT
