"""Attacks on an exit that serves somebody else: bounded, counted, and the other keeps its throughput."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.root  # what is measured here wants the processors for itself

SECONDS = 0.3
WARM_UP = 0.5
"""Seconds until an attack has used up what it may do at once."""

TRIES = 4
"""Another program may have had the processor: of several tries one is without it."""

KEPT = 0.8
"""Of its throughput, what the honest client keeps."""


async def kept(honest, attacked_exit, kind, **more):
    """Throughput under an attack as a share of that before and after it; and the number of attacks.

    Where others have the processors as well, throughput says little: then that by second of the exit's own
    processor time counts, which is what an attack could take away from a client.
    """
    quiet = [await honest.goodput(SECONDS)]
    with attacked_exit.attacked(kind, **more) as attack:
        await asyncio.sleep(WARM_UP)
        loud = [await honest.goodput(SECONDS), await honest.goodput(SECONDS)]
    await asyncio.sleep(0.3)
    quiet.append(await honest.goodput(SECONDS))
    print(kind, "quiet", quiet, "loud", loud, attack.count, "times")
    shares = [max(one[way] for one in loud) * 2 / sum(one[way] for one in quiet) for way in (0, 1)]
    return max(shares), attack.count


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
    before = attacked_exit.dropped()
    shares = []
    while not shares or (max(shares) < KEPT and len(shares) < TRIES):
        share, count = await kept(honest, attacked_exit, kind, destination=9)
        shares.append(share)
    after = await asyncio.to_thread(attacked_exit.dropped)
    fresh = {reason: n - before.get(reason, 0) for reason, n in after.items() if n > before.get(reason, 0)}
    print(fresh, attacked_exit.resident() // 2**20, "MiB", attacked_exit.lines(), "lines")
    assert count > 0
    assert reasons <= fresh.keys()
    assert max(shares) >= KEPT
    assert honest.download.end is None and not honest.losses
