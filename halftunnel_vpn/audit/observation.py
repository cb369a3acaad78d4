"""What was seen of a tunnel: records with times, legs and sizes, from its own log or from a capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

ACTIVITY_GAP: Final = 1.0
"""Seconds of silence on all paths that end an activity."""

ACTIVITY_BYTES: Final = 4096
"""Bytes below which records between two silences are keepalives and no activity."""


class Source(Enum):
    """Where the records come from."""

    LOG = "log"
    CAPTURE = "capture"


class AuditRecord(NamedTuple):
    """One record. None stands for what a capture does not show."""

    at: float
    """Seconds since the start."""
    up: bool
    """Whether the client sent it."""
    leg: str
    size: int
    pad: int | None = None
    """Bytes of padding in it."""
    late: float | None = None
    """Seconds between its slot and its departure."""
    slot: bool | None = None
    """Whether it left in a slot of the clock."""
    escape: str | None = None
    """Why it left outside the clock, where that is declared."""


@dataclass(slots=True)
class Observation:
    """The records of a tunnel in the order of time. ``mode`` is that of [shaping]; None: unknown."""

    source: Source
    mode: str | None
    records: Sequence[AuditRecord]
    whole_records: bool = True
    """False: the capture has cut frames, and records are guessed from segments."""
    up_legs: frozenset[str] = field(init=False)
    """Legs of path A: those on which the client sends more than it receives."""

    def __post_init__(self) -> None:
        balance: dict[str, int] = {}
        for record in self.records:
            signed = record.size if record.up else -record.size
            balance[record.leg] = balance.get(record.leg, 0) + signed
        self.up_legs = frozenset(leg for leg, bytes_up in balance.items() if bytes_up > 0)

    def path(self, letter: str) -> list[AuditRecord]:
        """Return the records on path ``A`` or ``B``, in both directions; for any other letter all."""
        if letter not in ("A", "B"):
            return list(self.records)
        return [record for record in self.records if (record.leg in self.up_legs) == (letter == "A")]

    def sent(self, letter: str) -> list[AuditRecord]:
        """Return the records of a path in its own direction: up on A, down on B."""
        return [record for record in self.path(letter) if record.up == (letter == "A")]


def activities(records: Sequence[AuditRecord]) -> list[list[AuditRecord]]:
    """Return the records of each activity: what lies between two silences and is more than keepalives."""
    found: list[list[AuditRecord]] = []
    last = float("-inf")
    for record in records:
        if record.at - last > ACTIVITY_GAP:
            found.append([])
        found[-1].append(record)
        last = record.at
    return [each for each in found if sum(record.size for record in each) >= ACTIVITY_BYTES]
