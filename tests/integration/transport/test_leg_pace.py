"""A leg with a pace is not writable while the kernel has enough to send at it, and all arrives in order."""

from __future__ import annotations

import time

RECORD = 8_000
RATE = 2_000_000.0


async def test_a_leg_with_a_pace_pulls_no_more_than_it_may_send(start_exit, until):
    exit_server = await start_exit()
    leg, _, _, listener = await exit_server.pair()
    leg.set_pace(RATE)
    began = time.monotonic()
    for number in range(100):
        await until(lambda: leg.writable)
        leg.send(bytes([number]) * RECORD)
        assert not leg.writable, "until the kernel tells what it has not sent"
    await until(lambda: len(listener.records) == 100)
    assert time.monotonic() - began > 0.5 * 100 * RECORD / RATE
    assert [record[0] for record in listener.records] == list(range(100))


async def test_a_leg_without_a_pace_stays_writable(start_exit, until):
    exit_server = await start_exit()
    leg, _, _, listener = await exit_server.pair()
    leg.set_pace(RATE)
    leg.send(bytes(RECORD))
    leg.set_pace(0.0)
    await until(lambda: leg.writable)
    leg.send(b"more")
    assert leg.writable
    await until(lambda: len(listener.records) == 2)


async def test_a_leg_that_rests_can_be_closed(start_exit, until):
    exit_server = await start_exit()
    leg, own, _, listener = await exit_server.pair()
    leg.set_pace(10_000.0)
    for _ in range(3):
        leg.send(bytes(RECORD))
    leg.abort()
    await until(lambda: own.reason is not None)
    assert not leg.writable
    leg.set_pace(RATE)
    await until(lambda: listener.reason is not None)
