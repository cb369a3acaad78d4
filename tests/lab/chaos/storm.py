"""Bulk in both directions at once while legs die at random: nothing may be lost, reset, or grow."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from halftunnel_vpn.errors import HostError
from lab.bench import usage
from lab.chaos.legs import Death, Legs, Way
from lab.chaos.recovery import Kill, Recoveries, worst_pause
from lab.chaos.transfers import Transfer
from lab.topology import Lab
from lab.tunnel import LabTunnel

TWINS: Final = 0.1
"""Share of the kills that take a leg of the other direction along at the same moment."""

LAST_KILL: Final = 0.95
"""Part of a transfer within which the kills are planned, so that each one hits bytes under way."""

POLL_INTERVAL: Final = 0.01
"""Seconds between two looks at how far the transfers are."""

ANSWER_TIMEOUT: Final = 30.0
"""Seconds within which the client must tell its status."""

MEASURE: Final = 0.25
"""Seconds between two looks at memory."""


@dataclass(slots=True)
class Memory:
    """Resident bytes of one program: when the storm began, the most, and when it was over."""

    before: int = 0
    most: int = 0
    after: int = 0

    def see(self, pid: int) -> None:
        """Measure now."""
        self.after = usage.resident_bytes([pid])
        self.before = self.before or self.after
        self.most = max(self.most, self.after)


@dataclass(slots=True)
class StormReport:
    """What a storm did and how it was borne. Seconds and bytes."""

    seed: int
    size: int
    kills: list[Kill] = field(default_factory=list)
    recoveries: Recoveries = field(default_factory=Recoveries)
    worst_stall: dict[Way, float] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=lambda: {"client": Memory(), "exit": Memory()})
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    """What must not happen and did, a sentence each."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a storm is, for a display."""

    seconds: float
    position: dict[Way, int]
    kills: int
    errors: int
    legs: dict[Way, int]


class Storm:
    """Storms over one tunnel, one after the other, which tell whether memory stays flat.

    The tunnel is up and stays up; it must keep its session through every storm. ``seed`` decides where in the
    flows legs die and how; when that is depends on the machine.
    """

    def __init__(self, lab: Lab, tunnel: LabTunnel, seed: int) -> None:
        assert tunnel.exit is not None and tunnel.client is not None
        self._lab = lab
        self._tunnel = tunnel
        self._seed = seed
        self._rng = random.Random(seed)
        self._pids = {"client": tunnel.client.pid, "exit": tunnel.exit.pid}
        self._legs = Legs(lab, tunnel.exit.pid)

    def blow(
        self, size: int, kills: int, *, progress: Callable[[Progress], None] = lambda progress: None
    ) -> StormReport:
        """``size`` bytes each way or more, and so many kills; never raises for what the tunnel does wrong."""
        report = StormReport(self._seed, size)
        session = self._session()
        began = time.monotonic()
        with self._transfers(size) as transfers:
            self._kill_and_watch(report, transfers, self._plan(size, kills), began, progress)
            until = time.monotonic()
        for transfer in transfers.values():
            report.errors += transfer.errors
            if not transfer.errors and not transfer.is_whole:
                report.errors.append(f"the {transfer.way.name.lower()} flow did not arrive as it was sent")
            report.recoveries.add(report.kills, transfer.way, transfer.pauses, until)
            report.worst_stall[transfer.way] = worst_pause(transfer.pauses)
        report.seconds = until - began
        if self._session() != session:
            report.errors.append("the session was not kept")
        for name, pid in self._pids.items():
            report.memory[name].see(pid)
        return report

    def _kill_and_watch(
        self,
        report: StormReport,
        transfers: dict[Way, Transfer],
        plan: dict[Way, list[int]],
        began: float,
        progress: Callable[[Progress], None],
    ) -> None:
        deaths = self._deaths(sum(len(positions) for positions in plan.values()))
        measured = 0.0
        while not all(transfer.is_done for transfer in transfers.values()):
            for way, positions in plan.items():
                if positions and transfers[way].position >= positions[0] and self._kill(report, way, deaths):
                    positions.pop(0)
                    other = Way.UP if way is Way.DOWN else Way.DOWN
                    if plan[other] and self._rng.random() < TWINS and self._kill(report, other, deaths):
                        plan[other].pop(self._rng.randrange(len(plan[other])))
                if not positions:
                    transfers[way].finish()
            now = time.monotonic()
            if now - measured >= MEASURE:
                measured = now
                for name, pid in self._pids.items():
                    report.memory[name].see(pid)
                progress(self._progress(report, transfers, now - began))
            if any(transfer.errors for transfer in transfers.values()):
                for transfer in transfers.values():
                    transfer.finish()  # it is lost: no further kills
                plan = {}
            time.sleep(POLL_INTERVAL)

    def _kill(self, report: StormReport, way: Way, deaths: Iterator[Death]) -> bool:
        legs = self._legs.of(way)
        if not legs:
            return False  # it is down already: let it come up first
        death = next(deaths)
        at = time.monotonic()
        if not self._legs.kill(self._rng.choice(legs), death):
            return False
        report.kills.append(Kill(at, way, death, len(legs)))
        return True

    def _plan(self, size: int, kills: int) -> dict[Way, list[int]]:
        """At which byte of each flow a leg dies."""
        up = kills // 2
        last = int(size * LAST_KILL)
        return {
            way: sorted(self._rng.randrange(last) for _ in range(count))
            for way, count in ((Way.UP, up), (Way.DOWN, kills - up))
        }

    def _deaths(self, count: int) -> Iterator[Death]:
        """As many of each kind, in random order, and any number more for those that came too late."""
        kinds = (list(Death) * (count // len(Death) + 1))[:count]
        self._rng.shuffle(kinds)
        yield from kinds
        while True:
            yield self._rng.choice(list(Death))

    def _progress(self, report: StormReport, transfers: dict[Way, Transfer], seconds: float) -> Progress:
        return Progress(
            seconds,
            {way: transfer.position for way, transfer in transfers.items()},
            len(report.kills),
            sum(len(transfer.errors) for transfer in transfers.values()),
            {way: len(self._legs.of(way)) for way in Way},
        )

    @contextlib.contextmanager
    def _transfers(self, size: int) -> Iterator[dict[Way, Transfer]]:
        with contextlib.ExitStack() as stack:
            yield {way: stack.enter_context(Transfer(self._lab, way, size)) for way in Way}

    def _session(self) -> int:
        """The number of the client's session. HostError when it does not answer, however busy it is."""
        until = time.monotonic() + ANSWER_TIMEOUT
        while True:
            status = self._tunnel.status()
            if status is not None and "session" in status:
                session: int = status["session"]
                return session
            if time.monotonic() > until:
                raise HostError(f"The client does not answer:\n{self._tunnel.client_output()}")
            time.sleep(MEASURE)
