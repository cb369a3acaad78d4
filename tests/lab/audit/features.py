"""Features of a view, after k-fingerprinting (Hayes and Danezis, USENIX Security 2016), CUMUL and RF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from lab.audit.views import Packets, series

FIRST_PACKETS: Final = 40
"""Packets at the beginning whose signed sizes are features of their own."""

CHUNK: Final = 20
"""Packets in which those of each direction are counted (concentration)."""

FIRST_BURSTS: Final = 40
"""Bursts of each direction whose sizes and times are features of their own."""

CURVE_POINTS: Final = 60
"""Points of the curves of bytes over packets and over time (CUMUL)."""

AGGREGATION_BINS: Final = (12, 60)
"""Bins of the traffic aggregation, coarse and fine."""

SIZE_EDGES: Final = (0, 40, 80, 120, 180, 250, 350, 500, 700, 900, 1100, 1300, 1400, 1440, 1460, 9000)

SIZE_STEP: Final = 4
"""Bytes that sizes are rounded to where they are counted one by one."""

FULL_SEGMENT: Final = 1448
"""Bytes of a segment that has a next one of the same record."""

LARGEST_RECORD: Final = 6000
"""Bytes from which on records and bursts count as of one size."""

BURST_EDGES: Final = (*range(0, 1500, 60), 1500, 2000, 3000, 4500, 7000, 11000, 20000, 50000, 10**9)

BURST_GAP: Final = 0.004
"""Seconds within which packets of one direction are one record or train."""


def fingerprint(view: Packets) -> np.ndarray:
    """Return the features of one view, always the same number of them."""
    at, size, channel = view[:, 0], view[:, 1], view[:, 2]
    up, down = size > 0, size < 0
    found: list[float] = [len(view), at[-1] if len(view) else 0.0, len(np.unique(channel))]
    for side in (up, down):
        found += [side.sum(), np.abs(size[side]).sum(), side.sum() / max(1, len(view))]
        found += [side[:30].sum(), side[-30:].sum()]
        found += _spread(np.diff(at[side])) + _spread(np.abs(size[side]))
        found += list(np.percentile(at[side], (10, 25, 50, 75, 90, 100))) if side.any() else [0.0] * 6
        found += list(np.histogram(np.abs(size[side]), SIZE_EDGES)[0])
        found += _bursts(at[side], np.abs(size[side]))
        places = np.flatnonzero(side)
        found += [places.mean() if len(places) else 0.0, places.std() if len(places) else 0.0]
    found += _spread(np.diff(at))
    chunks = [up[start : start + CHUNK].sum() for start in range(0, len(view), CHUNK)]
    found += _spread(np.array(chunks, dtype=float)) + _resampled(np.array(chunks, dtype=float), 20)
    per_second = np.bincount(at.astype(int)) if len(view) else np.zeros(1)
    found += _spread(per_second.astype(float))
    turns = np.diff(np.flatnonzero(np.diff(np.sign(size)))) if len(view) > 2 else np.zeros(0)
    found += _spread(turns.astype(float)) + [float((turns > limit).sum()) for limit in (5, 10, 15)]
    first = np.zeros(FIRST_PACKETS)
    first[: min(FIRST_PACKETS, len(view))] = size[:FIRST_PACKETS]
    found += list(first)
    found += _resampled(np.cumsum(size), CURVE_POINTS) + _resampled(np.cumsum(np.abs(size)), CURVE_POINTS)
    return np.array(found, dtype=float)


def fingerprints(views: Sequence[Packets]) -> np.ndarray:
    """Return a row of features for each view."""
    return np.stack([fingerprint(each) for each in views])


def size_counts(views: Sequence[Packets]) -> np.ndarray:
    """Return a row for each view: how many packets, records and bursts have each size, on a log scale."""
    rows = np.stack([_sizes(each) for each in views])
    return np.log1p(rows[:, rows.any(axis=0)])


def aggregated(views: Sequence[Packets]) -> np.ndarray:
    """Return a row for each view: bytes and packets of each direction in time bins, and their sums so far."""
    rows = []
    for bins in AGGREGATION_BINS:
        over_time = series(views, bins)
        rows += [over_time.reshape(len(views), -1), np.cumsum(over_time, axis=2).reshape(len(views), -1)]
    return np.concatenate(rows, axis=1)


def _sizes(view: Packets) -> np.ndarray:
    found = []
    edges = np.arange(0, LARGEST_RECORD + 2 * SIZE_STEP, SIZE_STEP)
    for sign in (1, -1):
        side = view[np.sign(view[:, 1]) == sign]
        at, size = side[:, 0], np.abs(side[:, 1])
        bursts = np.split(size, np.flatnonzero(np.diff(at) > BURST_GAP) + 1) if len(size) else []
        records = np.split(size, np.flatnonzero(size < FULL_SEGMENT) + 1) if len(size) else []
        for sums in (size, [part.sum() for part in bursts], [part.sum() for part in records if len(part)]):
            found.append(np.histogram(np.minimum(sums, LARGEST_RECORD), edges)[0])
    return np.concatenate(found).astype(float)


def _spread(values: np.ndarray) -> list[float]:
    if not len(values):
        return [0.0] * 7
    return [
        float(values.min()), float(values.max()), float(values.mean()), float(values.std()),
        *map(float, np.percentile(values, (25, 50, 75))),
    ]  # fmt: skip


def _bursts(at: np.ndarray, size: np.ndarray) -> list[float]:
    """Number and sizes of what was sent together: a request, or an answer."""
    edges = len(BURST_EDGES) - 1
    if not len(at):
        return [0.0] * (16 + edges + 2 * FIRST_BURSTS)
    ends = np.flatnonzero(np.diff(at) > BURST_GAP)
    sums = np.array([part.sum() for part in np.split(size, ends + 1)])
    times = at[np.concatenate(([0], ends + 1))]
    largest, first, when = np.zeros(8), np.zeros(FIRST_BURSTS), np.zeros(FIRST_BURSTS)
    largest[: min(8, len(sums))] = np.sort(sums)[::-1][:8]
    first[: min(FIRST_BURSTS, len(sums))] = sums[:FIRST_BURSTS]
    when[: min(FIRST_BURSTS, len(sums))] = times[:FIRST_BURSTS]
    histogram = np.histogram(sums, BURST_EDGES)[0]
    return [float(len(sums)), *_spread(sums), *largest, *histogram, *first, *when]


def _resampled(values: np.ndarray, points: int) -> list[float]:
    if not len(values):
        return [0.0] * points
    return list(np.interp(np.linspace(0, len(values) - 1, points), np.arange(len(values)), values))
