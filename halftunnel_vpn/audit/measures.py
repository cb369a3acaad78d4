"""What records give away: how varied sizes are, how one path mirrors the other, handshakes, lateness."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from halftunnel_vpn.audit.observation import AuditRecord

BIN: Final = 0.1
"""Seconds over which bytes are added up to compare two paths."""

MAX_LAG_BINS: Final = 5
"""Bins by which one path may follow the other."""

SMALL_RECORD: Final = 250
"""Bytes below which an upstream record is an acknowledgement or a small request."""

STOP_STEP: Final = 1.25
STOP_FIRST: Final = 0.5
"""In mode strong activities stop after STOP_FIRST * STOP_STEP ** k seconds."""

FOUR_BURSTS: Final = ((250, 3000), (600, 8000), (60, 1250), (100, 1 << 40))
"""Bytes of the bursts of a TLS handshake in a tunnel: hello, server's flight, finished, first answer."""

LEAST_BURST_RECORD: Final = 100
"""Bytes below which a record is an acknowledgement of the tunnel, and part of no burst."""

BURST_GAP: Final = 0.5
"""Seconds within which one burst must answer the other."""

SLOT_STEP: Final = 0.01
"""Seconds of which the time between two slots of the exit is a multiple."""

PHASE_RECORDS: Final = 50
"""Records in a row from which the phase of the exit's slots is estimated: its clock is another one."""

MIN_SAMPLES: Final = 50
"""Records of each kind without which lateness is not judged."""

PURE_PADDING_SLACK: Final = 24
"""Bytes beyond the least that is never padding, up to which a record holds nothing but padding."""


def entropy(values: Sequence[int]) -> float:
    """Return the Shannon entropy of some values, in bits a value."""
    counts = Counter(values).values()
    total = len(values)
    return -sum(count / total * math.log2(count / total) for count in counts) + 0.0 if total else 0.0


def bins(records: Sequence[AuditRecord], length: float) -> list[float]:
    """Return the bytes in each bin of ``length`` seconds of observation."""
    found = [0.0] * (int(length / BIN) + 1)
    for record in records:
        found[min(len(found) - 1, int(record.at / BIN))] += record.size
    return found


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest Pearson correlation of two series, the second one up to ``MAX_LAG_BINS`` later."""
    best = 0.0
    for lag in range(min(MAX_LAG_BINS, len(other) - 2) + 1):
        best = max(best, _pearson(one[: len(one) - lag], other[lag:]))
    return best


def echo(up: Sequence[AuditRecord], down: Sequence[AuditRecord], length: float) -> float:
    """Return how far small upstream records follow the downstream's bytes: 0 not at all, 1 exactly."""
    small = [record for record in up if record.size < SMALL_RECORD]
    return correlation(bins(down, length), bins(small, length))


def bits(activities: Sequence[Sequence[AuditRecord]], *, clocked: bool) -> float:
    """Return the bits by which the activities differ on what is watched.

    Unclocked, an activity shows its bytes in each direction (to a KiB); clocked, the stop at which it ended.
    It cannot be more than the logarithm of their number.
    """
    shown: Counter[tuple[int, int]] = Counter()
    for records in activities:
        if clocked:
            seconds = max(STOP_FIRST, records[-1].at - records[0].at)
            shown[round(math.log(seconds / STOP_FIRST, STOP_STEP)), 0] += 1
        else:
            sums = [sum(record.size for record in records if record.up is up) for up in (True, False)]
            shown[sums[0] >> 10, sums[1] >> 10] += 1
    total = sum(shown.values())
    return -sum(count / total * math.log2(count / total) for count in shown.values()) + 0.0 if total else 0.0


def four_bursts(records: Sequence[AuditRecord]) -> int:
    """Return how often four bursts in turn have the sizes of a TLS handshake in a tunnel.

    A model of ranges after Xue and others (USENIX Security 2024); theirs and nDPI's measure distances.
    """
    bursts: list[tuple[bool, int, float, float]] = []
    for record in records:
        if record.size < LEAST_BURST_RECORD:
            continue
        if bursts and bursts[-1][0] == record.up:
            up, size, began, _ = bursts[-1]
            bursts[-1] = (up, size + record.size, began, record.at)
        else:
            bursts.append((record.up, record.size, record.at, record.at))
    found = 0
    for place in range(len(bursts) - 3):
        four = bursts[place : place + 4]
        quick = all(four[at + 1][2] - four[at][3] <= BURST_GAP for at in range(3))
        fits = all(low <= burst[1] <= high for burst, (low, high) in zip(four, FOUR_BURSTS, strict=True))
        found += four[0][0] and quick and fits
    return found


def cell_size(records: Sequence[AuditRecord]) -> int:
    """Return the size that most records have; 0 without records."""
    counts = Counter(record.size for record in records)
    return counts.most_common(1)[0][0] if counts else 0


def is_padding_only(record: AuditRecord, least: int) -> bool:
    """Return whether nothing but padding is in a record; ``least`` is the least rest of any record."""
    return (
        record.pad is not None and record.pad > 0 and record.size - record.pad <= least + PURE_PADDING_SLACK
    )


class Separation(NamedTuple):
    """How well lateness distinguishes padding: the area under the ROC curve, and its standard error."""

    area: float
    """0.5: not at all; 1: always."""
    error: float


def lateness(records: Sequence[AuditRecord]) -> Separation | None:
    """Return how well lateness distinguishes padding (Mann-Whitney); None with too few of one kind."""
    known = [record for record in records if record.slot and record.late is not None]
    least = min((record.size - (record.pad or 0) for record in known), default=0)
    kinds = [(record.late or 0.0, is_padding_only(record, least)) for record in known]
    padding = sum(is_padding for _, is_padding in kinds)
    data = len(kinds) - padding
    if min(padding, data) < MIN_SAMPLES:
        return None
    kinds.sort()
    ranks = 0.0
    place = 0
    while place < len(kinds):
        end = place
        while end < len(kinds) and kinds[end][0] == kinds[place][0]:
            end += 1
        tied = sum(is_padding for _, is_padding in kinds[place:end])
        ranks += tied * (place + 1 + end) / 2
        place = end
    area = (ranks - padding * (padding + 1) / 2) / (padding * data)
    # the error of the area where both kinds are alike
    error = math.sqrt((padding + data + 1) / (12 * padding * data))
    return Separation(max(area, 1 - area), error)


def arrival_lateness(records: Sequence[AuditRecord]) -> list[AuditRecord]:
    """Return the records that came in slots of the peer's clock, with how late they were beside the others.

    The peer's slots are not known here: their phase is the circular mean of the arrivals around a record.
    What the path adds at random is in it, for padding and data alike.
    """
    slots = [record for record in records if record.slot and record.escape is None]
    found: list[AuditRecord] = []
    for start in range(0, len(slots), PHASE_RECORDS):
        block = slots[start : start + PHASE_RECORDS]
        turns = [record.at % SLOT_STEP / SLOT_STEP * math.tau for record in block]
        middle = math.atan2(sum(map(math.sin, turns)), sum(map(math.cos, turns)))
        for record, turn in zip(block, turns, strict=True):
            late = math.remainder(turn - middle, math.tau) / math.tau * SLOT_STEP
            found.append(record._replace(late=late))
    return found


def _pearson(one: Sequence[float], other: Sequence[float]) -> float:
    count = min(len(one), len(other))
    if count < 2:
        return 0.0
    mean_one, mean_other = sum(one[:count]) / count, sum(other[:count]) / count
    top = sum((a - mean_one) * (b - mean_other) for a, b in zip(one[:count], other[:count], strict=True))
    squares = [sum((value - mean) ** 2 for value in values[:count])
               for values, mean in ((one, mean_one), (other, mean_other))]  # fmt: skip
    return top / math.sqrt(squares[0] * squares[1]) if all(squares) else 0.0
