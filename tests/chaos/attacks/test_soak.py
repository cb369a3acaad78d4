"""Streams that come and go, and legs that are cut, for as long as one likes: memory of both ends stays flat.

For longer: ``SOAK_SECONDS=3600 pytest -s tests/chaos/attacks/test_soak.py``.
"""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest

from halftunnel_vpn.protocol.stream_messages import ResetCode

pytestmark = [pytest.mark.root, pytest.mark.alone]

SECONDS = float(os.environ.get("SOAK_SECONDS", "4"))
STREAMS = 20
"""Streams of a round."""

BYTES = 200_000
"""Bytes that each of them reads before it is reset."""

GROWTH = 16 * 2**20
"""Bytes by which resident memory may differ between the middle and the end: the allocator's own doing."""


def own_memory() -> int:
    """Resident bytes of this process, which is the client."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(SECONDS * 4 + 120)
async def test_memory_is_flat(attacked_exit, honest):
    loop = asyncio.get_running_loop()
    end, rounds = loop.time() + SECONDS, 0
    sizes: list[tuple[int, int]] = []
    while loop.time() < end or rounds < 12:
        streams = [honest.open(attacked_exit.source_port) for _ in range(STREAMS)]
        async with asyncio.timeout(60):
            while any(one.received < BYTES and not one.end for one in streams):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        assert not [stream.end for stream in streams if stream.end]
        for stream in streams:
            stream.stream.reset(ResetCode.NORMAL)
        if rounds % 3 == 2:
            session = honest.connection.session
            assert session is not None
            legs = session.legs
            legs[rounds % len(legs)].port._leg.abort()
            async with asyncio.timeout(60):
                while honest.connection.state != "connected":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        gc.collect()
        sizes.append((own_memory(), attacked_exit.resident()))
        rounds += 1
    print(f"{rounds} rounds, MiB of client and exit:", [tuple(x >> 20 for x in both) for both in sizes[::8]])
    half = len(sizes) // 2
    for end_name, before, after in zip(
        ("client", "exit"), map(max, zip(*sizes[: half + 1], strict=True)), sizes[-1], strict=True
    ):
        assert after - before < GROWTH, f"{end_name}: {before} to {after}"
    assert honest.download.end is None and not honest.losses
