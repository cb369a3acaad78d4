"""Attacks on an exit that serves somebody else: bounded, counted, and the other goes on.

How much of its throughput the other keeps is printed: on a busy machine it says as much about who else is
there.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from halftunnel_vpn.transport.admission import BURST, ListenLimits

pytestmark = [pytest.mark.root, pytest.mark.alone, pytest.mark.timeout(400)]

SECONDS = 0.3
WARM_UP = 0.5
"""Seconds until an attack has used up what it may do at once."""

TRIES = 3
"""Another program may have had the processor: of several tries one is without it."""

PROMISED = 0.8
"""What an attack leaves of the throughput of somebody else, on a machine that has nothing else to do."""

KEPT = 0.5
"""What it must leave on any machine, in the best of the tries."""

MEMORY = 512 * 2**20
"""Bytes that the exit has at the most: those that clients may make it hold, and as much again for itself."""

SOURCES = 3
"""Addresses from which strangers come, and that of the insider whom they have listened to."""

STRANGERS = {"handshakes", "replays"}
"""Attacks by connections that never join a session, from several addresses at once."""

OTHER_VISITS = 32
"""Connections of the honest client in the meantime, legs that rotate and legs that come again."""


async def kept(honest, attacked_exit, kind, reasons, fresh, **more):
    """What an attack leaves of the throughput before and after it, as a share; and the number of attacks.

    Where others have the processors as well, throughput says little, and what the attack costs the exit
    counts: its load beyond what the bytes of the download need. With a processor to itself it is the same.
    """
    quiet = [await honest.goodput(SECONDS)]
    with attacked_exit.attacked(kind, **more) as attack:
        async with asyncio.timeout(90):  # a busy machine may keep the attacker waiting
            while not reasons <= (await fresh()).keys():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        if kind in STRANGERS:
            with contextlib.suppress(TimeoutError):  # it is slower than it may be
                async with asyncio.timeout(BURST):
                    while "stranger-rate" not in await fresh():  # noqa: ASYNC110
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
        ("crowd", {"join-client-legs"}),
        ("churn", set()),
        ("handshakes", {"handshake-unknown-client"}),
        ("replays", {"handshake-replayed"}),
        ("idlers", set()),
    ],
)
async def test_an_attack_is_bounded_and_others_go_on(honest, attacked_exit, kind, reasons, capsys):
    loop = asyncio.get_running_loop()
    began = loop.time()
    before = await asyncio.to_thread(attacked_exit.dropped)
    accepted = -(await asyncio.to_thread(attacked_exit.counted))["connections-accepted"]
    received = honest.download.received

    async def fresh():
        after = await asyncio.to_thread(attacked_exit.dropped)
        return {reason: n - before.get(reason, 0) for reason, n in after.items() if n > before.get(reason, 0)}

    shares = []
    while not shares or (max(shares) < PROMISED and len(shares) < TRIES):
        share, count = await kept(honest, attacked_exit, kind, reasons, fresh, destination=9)
        shares.append(share)
    with capsys.disabled():
        print(f"\n{kind}: the other client keeps {min(1.0, max(shares)):.0%} of its throughput")
    print(await fresh(), attacked_exit.resident() // 2**20, "MiB", attacked_exit.lines(), "lines")
    assert count > 0
    assert max(shares) >= KEPT
    assert honest.download.received > received
    assert honest.download.end is None and not honest.losses
    assert attacked_exit.resident() < MEMORY
    if kind in STRANGERS:
        accepted += (await asyncio.to_thread(attacked_exit.counted))["connections-accepted"]
        a_road = ListenLimits().strangers_per_peer * (BURST + loop.time() - began)
        assert accepted <= 2 * SOURCES * a_road + OTHER_VISITS
