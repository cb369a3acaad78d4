"""What one exit costs with so many clients, step by step."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab.bench.usage import cpu_seconds, resident_bytes
from lab.scale.place import Place

REQUEST_RATE: Final = 50.0
"""Requests a second of all clients together; each is a new stream."""

SHARE_LOADED: Final = 10
"""One client in so many carries the load."""

LOAD: Final = 125_000
"""Bytes a second of such a client: 1 Mbit/s."""

SETTLE: Final = 0.1
"""Part of the seconds of a measurement that is a rest before it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, apart from the number of clients."""

    streams: int = 10
    seconds: float = 20.0
    processes: int = 4


@dataclass(frozen=True, slots=True)
class Row:
    """The figures for one number of clients. Memory in bytes, times in seconds, shares of one processor."""

    clients: int
    memory_at_rest: int
    memory_per_client: float
    memory_per_stream: float
    memory: int
    joins_per_second: float
    processor_per_join: float
    refused_joins: int
    processor_idle: float
    processor_requests: float
    processor_loaded: float
    request_median: float
    request_p99: float
    loaded_median: float
    loaded_p99: float
    failed_requests: int
    load_wanted: float
    load_carried: float

    def as_dict(self) -> dict[str, float]:
        """Return plain data."""
        return dataclasses.asdict(self)


def measure(clients: int, plan: Plan, package: Path | None = None) -> Row:
    """Measure a new exit with so many clients. Raises HostError."""
    with tempfile.TemporaryDirectory(prefix="htscale-") as name, Place(Path(name), package) as place:
        return _Measurement(place, clients, plan).run()


class _Measurement:
    def __init__(self, place: Place, clients: int, plan: Plan) -> None:
        self._place = place
        self._clients = clients
        self._plan = plan
        directory = place.make_exit("exit")
        profiles = place.make_clients(directory, clients)
        port = place.start_destination()
        self._pid = place.start_exit(directory).pid
        self._drivers = place.start_drivers(port, profiles, plan.processes)

    def run(self) -> Row:
        number, plan = self._clients, self._plan
        at_rest = self._memory()
        began, used = time.monotonic(), cpu_seconds([self._pid])
        joined = self._drivers.do("join")
        joins, join_cost = number / (time.monotonic() - began), cpu_seconds([self._pid]) - used
        time.sleep(SETTLE * plan.seconds)
        with_sessions = self._memory()
        opened = sum(answer["streams"] for answer in self._drivers.do("open", streams=plan.streams))
        time.sleep(SETTLE * plan.seconds)
        with_streams = self._memory()
        idle = self._processor(plan.seconds)
        quiet, quiet_share = self._requests(0)
        loaded = max(number // SHARE_LOADED, 1)
        busy, busy_share = self._requests(loaded)
        carried = sum(one["bytes"] / one["seconds"] for one in busy)
        self._drivers.do("leave")
        taken = [sorted(value for one in part for value in one["taken"]) for part in (quiet, busy)]
        return Row(
            clients=number,
            memory_at_rest=at_rest,
            memory_per_client=(with_sessions - at_rest) / number,
            memory_per_stream=(with_streams - with_sessions) / max(opened, 1),
            memory=with_streams,
            joins_per_second=joins,
            processor_per_join=join_cost / number,
            refused_joins=sum(one["failures"] for one in joined),
            processor_idle=idle,
            processor_requests=quiet_share,
            processor_loaded=busy_share,
            request_median=statistics.median(taken[0]),
            request_p99=percentile(taken[0], 0.99),
            loaded_median=statistics.median(taken[1]),
            loaded_p99=percentile(taken[1], 0.99),
            failed_requests=sum(one["failures"] for one in (*quiet, *busy)),
            load_wanted=loaded * LOAD,
            load_carried=carried,
        )

    def _requests(self, loaded: int) -> tuple[list[dict[str, Any]], float]:
        """Return the answers of all processes, and the share of a processor that the exit took."""
        drivers = self._drivers
        parts = [loaded // len(drivers) + (number < loaded % len(drivers)) for number in range(len(drivers))]
        before, began = cpu_seconds([self._pid]), time.monotonic()
        answers = drivers.do_each(
            "requests",
            [
                {
                    "rate": REQUEST_RATE / len(drivers),
                    "seconds": self._plan.seconds,
                    "loaded": part,
                    "load": LOAD,
                }
                for part in parts
            ],
        )
        return answers, (cpu_seconds([self._pid]) - before) / (time.monotonic() - began)

    def _processor(self, seconds: float) -> float:
        before, began = cpu_seconds([self._pid]), time.monotonic()
        time.sleep(seconds)
        return (cpu_seconds([self._pid]) - before) / (time.monotonic() - began)

    def _memory(self) -> int:
        return resident_bytes([self._pid])


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which ``share`` of the ``ordered`` values are."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
