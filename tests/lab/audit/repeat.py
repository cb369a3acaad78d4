"""Two runs with one seed: by how much their figures differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from halftunnel_vpn.errors import UsageError

MOST_POINTS: Final = 3.0
"""Points by which what is recognised may differ."""


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float]]:
    """Yield mode, observer and what the best attacker of each run recognised, in hundredths of the loads.

    ``one`` and ``other`` are what ``--json`` has written. Raises UsageError for runs that have nothing in
    common.
    """
    if one["world"] != other["world"]:
        raise UsageError(f"two worlds: {one['world']} and {other['world']}")
    shared = [name for name in one["runs"] if name in other["runs"]]
    if not shared:
        raise UsageError("no mode is in both runs")
    for name in shared:
        observers = one["runs"][name]["observers"], other["runs"][name]["observers"]
        for observer in observers[0]:
            if observer in observers[1]:
                first, second = (each[observer] for each in observers)
                shares = (100 * each["attackers"][each["best"]][0] for each in (first, second))
                yield (name, observer, *shares)


def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the table, and whether no figure differs by more than MOST_POINTS."""
    lines = ["| run | observer | first | second | points |", "|---|---|---|---|---|"]
    is_same = True
    for name, observer, first, second in differences(one, other):
        is_same = is_same and abs(first - second) <= MOST_POINTS
        lines.append(f"| {name} | {observer} | {first:.1f}% | {second:.1f}% | {second - first:+.1f} |")
    return "\n".join(lines), is_same
