"""The demo's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lab.demo.traffic import Traffic


class Verdict(NamedTuple):
    """One thing that was tried."""

    what: str
    good: bool
    detail: str


def print_traffic(traffic: Mapping[str, Traffic]) -> None:
    """Bytes of each transfer by road and direction."""
    rows: list[tuple[str, ...]] = [("bytes, seen from the client", "A up", "A down", "B up", "B down")]
    for title, found in traffic.items():
        a, b = found.a, found.b
        payload = (a.payload_up, a.payload_down, b.payload_up, b.payload_down)
        wire = (a.wire_up, a.wire_down, b.wire_up, b.wire_down)
        rows.append((title, *(f"{count:,}" for count in payload)))
        rows.append(("  with TLS, TCP, IP, Ethernet", *(f"{count:,}" for count in wire)))
    print()
    _print_table(rows, right=range(1, 5))


def print_verdicts(verdicts: Sequence[Verdict], seconds: float) -> bool:
    """Every verdict, and whether all are good."""
    good = all(verdict.good for verdict in verdicts)
    rows = [("verdict", "what", "seen")]
    rows += [("ok" if verdict.good else "FAILED", verdict.what, verdict.detail) for verdict in verdicts]
    print()
    _print_table(rows, right=())
    failed = sum(not verdict.good for verdict in verdicts)
    print(
        f"\n{'The tunnel works' if good else f'{failed} of {len(verdicts)} failed'}; {seconds:.1f} s in all."
    )
    return good


def _print_table(rows: Sequence[Sequence[str]], *, right: Sequence[int] | range) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
