"""A leg that is not read for a while: what comes meanwhile waits, and then comes whole and in order."""

from __future__ import annotations

import asyncio


class Pausing:
    """Listens and pauses the leg after every record."""

    def __init__(self):
        self.records = []
        self.reason = None

    def leg_opened(self, leg): ...

    def record_received(self, leg, record):
        self.records.append(bytes(record))
        leg.pause()

    def leg_writable(self, leg): ...

    def leg_closed(self, leg, reason):
        self.reason = reason


async def test_records_come_one_by_one_in_order(start_exit, until):
    exit_server = await start_exit()
    leg, _, other_leg, _ = await exit_server.pair()
    other_leg.listener = slow = Pausing()
    sent = [bytes([number]) * (1 + 40 * number) for number in range(150)]
    for record in sent:
        leg.send(record)
    for number in range(len(sent)):
        await until(lambda: len(slow.records) > number)  # noqa: B023
        await asyncio.sleep(0)
        assert len(slow.records) == number + 1
        other_leg.resume()
    assert slow.records == sent


async def test_a_paused_leg_hears_of_its_end_when_it_is_read_again(start_exit, until):
    exit_server = await start_exit(tls=False)
    leg, _, other_leg, _ = await exit_server.pair()
    other_leg.listener = slow = Pausing()
    leg.send(b"one")
    await until(lambda: slow.records)
    leg.close()
    await asyncio.sleep(0.05)
    assert slow.reason is None
    other_leg.resume()
    await until(lambda: slow.reason)
    assert slow.reason == "peer-closed-1000"
    other_leg.resume()
    other_leg.pause()


async def test_a_paused_leg_can_be_dropped(start_exit, until):
    exit_server = await start_exit()
    leg, _, other_leg, _ = await exit_server.pair()
    other_leg.listener = slow = Pausing()
    leg.send(b"one")
    await until(lambda: slow.records)
    other_leg.abort()
    await until(lambda: slow.reason)
    other_leg.resume()
