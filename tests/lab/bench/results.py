"""What was found: values by row and peer, failures, and the whole as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lab.bench.rows import BY_ID, ROWS, Row
from lab.bench.summary import Summary, summarise

SCHEMA: Final = 1
"""Version of the JSON's shape."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A peer as the report names it."""

    id: str
    title: str
    version: str
    options: tuple[str, ...] = ()


@dataclass(slots=True)
class Results:
    """One run. ``machine`` and ``settings`` are texts by name, as they are printed."""

    machine: dict[str, str]
    settings: dict[str, str]
    peers: list[Contestant] = field(default_factory=list)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Row to peer to one value a round."""
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """How long all of it took."""

    def record(self, peer: str, values: Mapping[str, float]) -> None:
        """Keep one visit's values. KeyError for a row that does not exist."""
        for row, value in values.items():
            self.values.setdefault(BY_ID[row].id, {}).setdefault(peer, []).append(value)

    def fail(self, peer: str, what: str, why: str) -> None:
        """Keep what could not be measured, for the report."""
        self.failures.append(f"{peer}, {what}: {why.strip()}")

    def rows(self) -> list[Row]:
        """The rows that have values, in the order of the table."""
        return [row for row in ROWS if row.id in self.values]

    def summaries(self, row: str) -> dict[str, Summary]:
        """By peer, in the order of the peers."""
        found = self.values.get(row, {})
        return {peer.id: summarise(found[peer.id]) for peer in self.peers if found.get(peer.id)}

    def medians(self, row: str, *, without: Sequence[str] = ()) -> dict[str, float]:
        """The medians by peer."""
        found = self.summaries(row)
        return {peer: summary.median for peer, summary in found.items() if peer not in without}

    def as_json(self) -> str:
        """Everything, also each round's value."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "machine": self.machine,
            "settings": self.settings,
            "seconds": round(self.seconds, 1),
            "peers": [
                {"id": peer.id, "title": peer.title, "version": peer.version, "options": list(peer.options)}
                for peer in self.peers
            ],
            "rows": [
                {
                    "id": row.id,
                    "title": row.title,
                    "unit": row.unit,
                    "better": row.better,
                    "peers": {
                        peer: {
                            "median": summary.median,
                            "low": summary.low,
                            "high": summary.high,
                            "values": self.values[row.id][peer],
                        }
                        for peer, summary in self.summaries(row.id).items()
                    },
                }
                for row in self.rows()
            ],
            "failures": self.failures,
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """What :meth:`as_json` wrote. Raises ValueError when it is something else."""
        try:
            document = json.loads(text)
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']} is not {SCHEMA}")
            peers = [
                Contestant(peer["id"], peer["title"], peer["version"], tuple(peer["options"]))
                for peer in document["peers"]
            ]
            results = cls(document["machine"], document["settings"], peers, {}, list(document["failures"]))
            results.seconds = float(document["seconds"])
            for row in document["rows"]:
                for peer, found in row["peers"].items():
                    for value in found["values"]:
                        results.record(peer, {row["id"]: float(value)})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no result of the benchmark: {error!r}") from error
        return results
