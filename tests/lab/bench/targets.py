"""What we want to reach, as ratios within one run, and what was reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lab.bench.results import Results
from lab.bench.rows import BY_ID, DATAGRAM_SIZES, DIRECTIONS, ENDS, EVERYDAY_LOSSES, page_row
from lab.bench.summary import best, ratio, significant

OURS: Final = "ours"
COMPILED: Final = "ours-compiled"
DIRECT: Final = "direct"
SHAPED: Final = ("ours-split", "ours-strong")
"""Ours with shaping, in the order of strength."""

DRAWN: Final = ("ours-split-3", "ours-3")
"""Three legs in each direction: drawn by lot, and in turns."""

NO_PEERS: Final = (DIRECT, "ours", "ours-compiled", "ours-4", *SHAPED, *DRAWN)
"""What is never "the best peer"."""


@dataclass(frozen=True, slots=True)
class Goal:
    """``factor`` times the peer ``against`` ("" is the best in the row); or ``limit``, in the row's unit."""

    row: str
    against: str = ""
    factor: float = 1.0
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a goal came to. ``wanted`` and ``found`` are texts; ``reached`` is None when it cannot be said."""

    title: str
    wanted: str
    found: str
    reached: bool | None


def _goals() -> Iterator[Goal]:
    for way in DIRECTIONS:
        yield Goal(f"tcp-1-{way}", "wireguard-go", 1.4)
        yield Goal(f"tcp-1-{way}", "openvpn-tcp", 6)
    for way in DIRECTIONS:
        yield Goal(f"tcp-8-{way}", "wireguard-go", 2)
    for size in DATAGRAM_SIZES:
        for way in DIRECTIONS:
            yield Goal(f"udp-{size}-{way}", factor=1.2)
    yield Goal("http", factor=1.2)
    yield Goal("connections", factor=1.2)
    yield Goal("ping-idle", factor=1)
    for way in DIRECTIONS:
        yield Goal(f"ping-{way}", factor=0.5)
        yield Goal(f"ping-{way}-p99", limit=2.0)
    for way in DIRECTIONS:
        for end in ENDS:
            yield Goal(f"cpu-{way}-{end}", factor=1)
    for loss in EVERYDAY_LOSSES:
        for which in ("new", "again"):
            yield Goal(page_row(loss, which), DIRECT)
    yield Goal("flow-client", limit=8)
    yield Goal("flow-exit", limit=16)


GOALS: Final = tuple(_goals())


def verdicts(results: Results, of: str = OURS) -> list[Verdict]:
    """One for each goal whose row was measured; ``of`` is the peer that is judged."""
    return [_judge(goal, results, of) for goal in GOALS if goal.row in results.values]


def _judge(goal: Goal, results: Results, of: str) -> Verdict:
    row = BY_ID[goal.row]
    medians = results.medians(goal.row)
    ours = medians.get(of)
    bound = "at least" if row.better == "higher" else "at most"
    if goal.limit is not None:
        wanted = f"{bound} {goal.limit:g} {row.unit}"
        if ours is None:
            return Verdict(row.title, wanted, "not measured", None)
        return Verdict(row.title, wanted, f"{significant(ours, row.digits)} {row.unit}", ours <= goal.limit)
    rivals = {peer: median for peer, median in medians.items() if peer not in NO_PEERS}
    peer = goal.against or best(rivals, row.better)
    titles = {contestant.id: contestant.title for contestant in results.peers}
    name = titles.get(goal.against, goal.against) if goal.against else "the best peer"
    wanted = f"{bound} {goal.factor:g} x {name}"
    if ours is None or peer not in medians or (found := ratio(ours, medians[peer])) is None:
        return Verdict(row.title, wanted, "not measured", None)
    reached = found >= goal.factor if row.better == "higher" else found <= goal.factor
    text = f"{significant(found, 3)} x"
    return Verdict(row.title, wanted, text if goal.against else f"{text} {titles[peer]}", reached)
