"""What each observer sees of a load: the packets of the paths and legs that it watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from lab.audit.traces import Trace

Packets: TypeAlias = np.ndarray
"""Rows of (seconds since the first packet, signed bytes, channel); upload is positive. A channel is a leg."""

ALL: Final = "all"
"""Both paths: the client's ISP."""


def observers(traces: Sequence[Trace]) -> list[str]:
    """Return the observers that these loads can have: all paths, each path, legs, pairs of legs."""
    legs = sorted({leg for trace in traces for leg in trace.legs})
    paths = sorted({leg[0] for leg in legs})
    found = [ALL, *paths]
    if len(legs) > len(paths):
        found += legs
        found += [f"{a}+{b}" for a in legs for b in legs if a[0] == "A" and b[0] == "B"]
    return found


def view(trace: Trace, observer: str) -> Packets:
    """Return what one observer sees of a load."""
    watched = observer.split("+")
    channels = {
        index: watched.index(leg) if leg in watched else "AB".index(leg[0])
        for index, leg in enumerate(trace.legs)
        if observer == ALL or any(leg.startswith(part) for part in watched)
    }
    rows = [(at / 1e6, size, channels[leg]) for at, size, leg in trace.packets if leg in channels]
    found = np.array(rows, dtype=float).reshape(-1, 3)
    if len(found):
        found[:, 0] -= found[0, 0]
    return found


def series(views: Sequence[Packets], bins: int, *, seconds: float | None = None) -> np.ndarray:
    """Return bytes and counts of each direction and channel over time: (views, channels, bins).

    ``seconds`` is the length; by default what 98 of 100 views need at most.
    """
    if seconds is None:
        seconds = float(np.percentile([each[-1, 0] if len(each) else 0.0 for each in views], 98)) + 1e-3
    channels = int(max((each[:, 2].max() for each in views if len(each)), default=0)) + 1
    made = np.zeros((len(views), channels * 4, bins))
    for number, each in enumerate(views):
        place = np.minimum((each[:, 0] / seconds * bins).astype(int), bins - 1)
        for channel in range(channels):
            for side, sign in enumerate((1, -1)):
                chosen = (each[:, 2] == channel) & (np.sign(each[:, 1]) == sign)
                row = channel * 4 + side * 2
                np.add.at(made[number, row], place[chosen], np.abs(each[chosen, 1]))
                np.add.at(made[number, row + 1], place[chosen], 1.0)
    return made[:, made.any(axis=(0, 2))]
