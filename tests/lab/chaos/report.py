"""What a run of storms found, in words and figures."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from lab.chaos.legs import Death, Way
from lab.chaos.storm import StormReport

MEGABYTE = 1_000_000


def render(storms: Sequence[StormReport]) -> str:
    """The report of one or several storms over one tunnel."""
    kills = [kill for storm in storms for kill in storm.kills]
    seconds = sum(storm.seconds for storm in storms)
    carried = sum(storm.size for storm in storms) / MEGABYTE
    counted = Counter((kill.way, kill.death) for kill in kills)
    lines = [
        f"{len(storms)} storm{'s' if len(storms) > 1 else ''} in {seconds:.0f} s, seed {storms[0].seed}: "
        f"at least {carried:.0f} MB up and {carried:.0f} MB down, {len(kills)} legs killed",
        "",
        f"| {'death':7} | {'up':>4} | {'down':>4} | {'median':>8} | {'worst':>8} |",
        "| ------- | ---: | ---: | -------: | -------: |",
    ]
    everything: list[float] = []
    for death in Death:
        values = [value for storm in storms for value in storm.recoveries.by_death[death]]
        everything += values
        up, down = counted[Way.UP, death], counted[Way.DOWN, death]
        lines.append(f"| {death.value:7} | {up:4} | {down:4} | {_median(values)} | {_worst(values)} |")
    up, down = (sum(counted[way, death] for death in Death) for way in Way)
    lines.append(f"| {'all':7} | {up:4} | {down:4} | {_median(everything)} | {_worst(everything)} |")
    stalls = {way: max((storm.worst_stall.get(way, 0.0) for storm in storms), default=0.0) for way in Way}
    lines += [
        "",
        "(seconds from the kill until bytes arrived again)",
        f"worst stall: {stalls[Way.UP]:.2f} s up, {stalls[Way.DOWN]:.2f} s down",
        *(_memory(storms, program) for program in ("client", "exit")),
    ]
    errors = [error for storm in storms for error in storm.errors]
    lines += [f"WRONG: {error}" for error in errors] or ["all hashes equal, no flow reset, one session"]
    return "\n".join(lines) + "\n"


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):6.2f} s" if values else f"{'-':>8}"


def _worst(values: Sequence[float]) -> str:
    return f"{max(values):6.2f} s" if values else f"{'-':>8}"


def _memory(storms: Sequence[StormReport], program: str) -> str:
    first, last = storms[0].memory[program], storms[-1].memory[program]
    most = max(storm.memory[program].most for storm in storms)
    figures = [first.before, most, last.after]
    before, peak, after = (value / MEGABYTE for value in figures)
    return (
        f"{program}'s resident memory: {before:.0f} MB before, {peak:.0f} at the most, {after:.0f} at the end"
    )
