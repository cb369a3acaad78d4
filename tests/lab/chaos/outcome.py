"""What a trial of the tunnel found: figures to print and sentences about what went wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from lab.chaos.legs import Way
from lab.chaos.recovery import worst_pause
from lab.chaos.transfers import Transfer
from lab.topology import Lab
from lab.tunnel import LabTunnel

POLL_INTERVAL: Final = 0.02
"""Seconds between two looks at something that is waited for."""


class Gone(Exception):
    """What a trial waits for did not come: the rest of the trial makes no sense."""


@dataclass(slots=True)
class Outcome:
    """One trial. ``errors`` are sentences about what must not happen and did."""

    name: str
    figures: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def line(self) -> str:
        """For a report."""
        wrong = "".join(f"\n  WRONG: {error}" for error in self.errors)
        return f"{self.name}: {'; '.join(self.figures) or 'nothing to say'}{wrong}"


def wait(question: Callable[[], bool], within: float, what: str) -> float:
    """Seconds until ``question`` is answered with True; raises Gone with ``what`` after ``within``."""
    began = time.monotonic()
    while not question():
        if time.monotonic() - began > within:
            raise Gone(f"{what}: not within {within:.0f} s")
        time.sleep(POLL_INTERVAL)
    return time.monotonic() - began


def wait_while_moving(
    question: Callable[[], bool], moved: Callable[[], int], within: float, what: str
) -> float:
    """As `wait`, but ``within`` is how long ``moved()`` may stay the same: a busy machine is only slow."""
    began = last = time.monotonic()
    before = moved()
    while not question():
        now, seen = time.monotonic(), moved()
        if seen != before:
            before, last = seen, now
        elif now - last > within:
            raise Gone(f"{what}: not within {within:.0f} s without a byte")
        time.sleep(POLL_INTERVAL)
    return time.monotonic() - began


class Traffic:
    """Bulk in both directions through ``lab``'s tunnel, from :func:`traffic`."""

    def __init__(self, transfers: dict[Way, Transfer]) -> None:
        self.transfers = transfers

    @property
    def is_done(self) -> bool:
        """Whether both flows have come to an end, good or bad."""
        return all(transfer.is_done for transfer in self.transfers.values())

    def wait_moving(self, size: int, within: float) -> float:
        """Seconds until ``size`` further bytes have arrived in both directions. Raises Gone."""
        goal = {way: transfer.position + size for way, transfer in self.transfers.items()}
        return wait_while_moving(
            lambda: all(transfer.position >= goal[way] for way, transfer in self.transfers.items()),
            lambda: sum(min(transfer.position, goal[way]) for way, transfer in self.transfers.items()),
            within,
            "bytes arrive in both directions",
        )

    def wait_whole(self, outcome: Outcome, within: float) -> None:
        """Let both flows end, and see what became of them. Raises Gone when they do not end."""
        for transfer in self.transfers.values():
            transfer.finish()
        wait_while_moving(
            lambda: self.is_done,
            lambda: sum(transfer.position for transfer in self.transfers.values()),
            within,
            "the flows end",
        )
        for way, transfer in self.transfers.items():
            outcome.errors += transfer.errors
            if not transfer.errors and not transfer.is_whole:
                outcome.errors.append(f"the {way.name.lower()} flow did not arrive as it was sent")
        worst = {way.name.lower(): worst_pause(each.pauses) for way, each in self.transfers.items()}
        moved = sum(transfer.position for transfer in self.transfers.values()) / 1e6
        stalls = ", ".join(f"{seconds:.2f} s {name}" for name, seconds in worst.items())
        outcome.figures.append(f"{moved:.0f} MB whole, worst stall {stalls}")


@contextlib.contextmanager
def traffic(lab: Lab, size: int) -> Iterator[Traffic]:
    """Bulk both ways, ``size`` bytes each or more, until ``wait_whole`` or the end of the block."""
    with contextlib.ExitStack() as stack:
        yield Traffic({way: stack.enter_context(Transfer(lab, way, size)) for way in Way})


@contextlib.contextmanager
def trial(outcome: Outcome, tunnel: LabTunnel) -> Iterator[None]:
    """Note what goes wrong in the block, and what the programs have printed that they must not."""
    try:
        yield
    except (Gone, OSError) as error:
        outcome.errors.append(str(error) or type(error).__name__)
    for name, output in (("client", tunnel.client_output()), ("exit", tunnel.exit_output())):
        if "Traceback" in output:
            outcome.errors.append(f"the {name} has printed a traceback:\n{output}")
