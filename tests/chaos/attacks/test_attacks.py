"""Attacks on an exit that serves somebody else: bounded, counted, and the other keeps its throughput."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = [pytest.mark.root, pytest.mark.alone]

SECONDS = 0.3
WARM_UP = 0.5
"""Seconds until an attack has used up what it may do at once."""

TRIES = 4
"""Another program may have had the processor: of several tries one is without it."""

KEPT = 0.8
"""What an attack leaves of the throughput of somebody else."""


async def kept(honest, attacked_exit, kind, reasons, fresh, **more):
    """What an attack leaves of the throughput before and after it, as a share; and the number of attacks.

    Where others have the processors as well, throughput says little, and what the attack costs the exit
    counts: its load beyond what the bytes of the download need. With a processor to itself it is the same.
    """
    quiet = [await honest.goodput(SECONDS)]
    with attacked_exit.attacked(kind, **more) as attack:
        async with asyncio.timeout(40):  # a busy machine may keep the attacker waiting
            while not reasons <= (await fresh()).keys():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await asyncio.sleep(WARM_UP)
        loud = [await honest.goodput(SECONDS), await honest.goodput(SECONDS)]
    await asyncio.sleep(0.3)
    quiet.append(await honest.goodput(SECONDS))
    rate = sum(one.rate for one in quiet) / 2
    price = sum(one.load for one in quiet) / sum(one.rate for one in quiet)
    left = [max(one.rate / rate, 1 - (one.load - one.rate * price)) for one in loud]
    print(
        kind,
        *(f"{one.rate:.0f} MB/s at {one.load:.2f}" for one in (*quiet, *loud)),
        attack.count,
        "times",
        left,
    )
    return max(left), attack.count


@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        ("opens", {"stream-memory-full", "too-many-refusals"}),
        ("dials", set()),
        ("pings", set()),
        ("forgeries", {"ack-never-sent"}),
        ("beyond-credit", {"beyond-credit"}),
        ("reconnects", {"join-unknown"}),
        ("handshakes", {"handshake-unknown-client"}),
        ("replays", {"handshake-replayed"}),
        ("idlers", set()),
    ],
)
async def test_an_attack_takes_little_from_others(honest, attacked_exit, kind, reasons):
    before = await asyncio.to_thread(attacked_exit.dropped)

    async def fresh():
        after = await asyncio.to_thread(attacked_exit.dropped)
        return {reason: n - before.get(reason, 0) for reason, n in after.items() if n > before.get(reason, 0)}

    shares = []
    while not shares or (max(shares) < KEPT and len(shares) < TRIES):
        share, count = await kept(honest, attacked_exit, kind, reasons, fresh, destination=9)
        shares.append(share)
    print(await fresh(), attacked_exit.resident() // 2**20, "MiB", attacked_exit.lines(), "lines")
    assert count > 0
    assert max(shares) >= KEPT
    assert honest.download.end is None and not honest.losses
