"""Segments that arrived out of order, kept until the gap before them is filled.

Nothing is copied: blocks hold the payloads of the segments as they came. Sequence numbers are unwrapped.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from typing import Final

MAX_SEGMENTS: Final = 4096
"""Out-of-order payloads of one flow (the receive window bounds their bytes)."""

MAX_BLOCKS: Final = 256
"""Separate blocks of one flow. This also bounds the number of open gaps."""

REPORTED_BLOCKS: Final = 4
"""SACK blocks in one segment: the most that fit when there is no other option (RFC 2018, 3)."""


class Block:
    """Adjacent payloads without a gap, from ``start`` to ``end``."""

    __slots__ = ("end", "parts", "start", "touched")

    def __init__(self, start: int, end: int, parts: list[memoryview], touched: int) -> None:
        self.start = start
        self.end = end
        self.parts = parts
        self.touched = touched


class Reassembly:
    """Disjoint blocks in ascending order, with a gap between any two. True while there are any."""

    __slots__ = ("_blocks", "_clock", "_segments")

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._segments = 0
        self._clock = 0

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def insert(self, start: int, payload: memoryview) -> bool:
        """Keep the new part of ``payload``; return False if a bound forbids it and nothing was kept."""
        if self._segments >= MAX_SEGMENTS:
            return False
        end = start + len(payload)
        blocks = self._blocks
        low = bisect_left(blocks, start, key=_end)
        high = bisect_right(blocks, end, key=_start)
        self._clock += 1
        if low == high:
            if len(blocks) >= MAX_BLOCKS:
                return False
            blocks.insert(low, Block(start, end, [payload], self._clock))
            self._segments += 1
            return True
        first = blocks[low]
        if start < first.start:
            first.parts.insert(0, payload[: first.start - start])
            first.start = start
            self._segments += 1
        # The parts between two blocks that this payload joins, and the part behind the last one.
        for following in blocks[low + 1 : high]:
            self._extend(first, payload[first.end - start : following.start - start])
            first.parts += following.parts
            first.end = following.end
        if end > first.end:
            self._extend(first, payload[first.end - start :])
        first.touched = self._clock
        del blocks[low + 1 : high]
        return True

    def take(self, at: int) -> list[memoryview]:
        """Remove and return what follows ``at`` without a gap. Drop blocks that lie before ``at``."""
        blocks = self._blocks
        while blocks and blocks[0].start <= at:
            block = blocks.pop(0)
            self._segments -= len(block.parts)
            if block.end > at:
                return _cut_front(block.parts, at - block.start)
        return []

    def clear(self) -> None:
        """Drop everything."""
        self._blocks.clear()
        self._segments = 0

    def report(self) -> list[tuple[int, int]]:
        """Return the edges of the blocks for a SACK option, the last changed one first (RFC 2018, 4)."""
        newest = heapq.nlargest(REPORTED_BLOCKS, self._blocks, key=_touched)
        return [(block.start, block.end) for block in newest]

    def _extend(self, block: Block, payload: memoryview) -> None:
        block.parts.append(payload)
        block.end += len(payload)
        self._segments += 1


def _cut_front(parts: list[memoryview], count: int) -> list[memoryview]:
    """Return ``parts`` without the first ``count`` bytes."""
    while count:
        length = len(parts[0])
        if length > count:
            parts[0] = parts[0][count:]
            break
        del parts[0]
        count -= length
    return parts


def _start(block: Block) -> int:
    return block.start


def _end(block: Block) -> int:
    return block.end


def _touched(block: Block) -> int:
    return block.touched
