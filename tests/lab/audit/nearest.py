"""The weakest attacker, without any package: the load whose bytes in each direction of each path are nearest.

It shows in the tests that the instrument works. Figures never come from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.audit.traces import Trace


def recognised(traces: Sequence[Trace], paths: str = "AB") -> float:
    """Return the share of loads whose nearest other load is of the same site, as seen on these paths."""
    seen = [_bytes(trace, paths) for trace in traces]
    right = 0
    for number, trace in enumerate(traces):
        others = [other for other in range(len(traces)) if other != number]
        nearest = min(others, key=lambda other: _distance(seen[number], seen[other]))
        right += traces[nearest].site == trace.site
    return right / len(traces)


def _bytes(trace: Trace, paths: str) -> dict[tuple[str, bool], int]:
    found: dict[tuple[str, bool], int] = {}
    for _, size, leg in trace.packets:
        path = trace.legs[leg][0]
        if path in paths:
            found[path, size > 0] = found.get((path, size > 0), 0) + abs(size)
    return found


def _distance(one: dict[tuple[str, bool], int], other: dict[tuple[str, bool], int]) -> float:
    keys = one.keys() | other.keys()
    return sum(
        abs(one.get(key, 0) - other.get(key, 0)) / (one.get(key, 0) + other.get(key, 0)) for key in keys
    )
