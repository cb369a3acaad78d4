"""The run: a lab for each peer, all up at once, and measurements that go round them in turn."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from halftunnel_vpn.errors import HostError
from lab import Lab, congestion, start_target
from lab.bench import machine, roads, usage
from lab.bench.measurements import Measurement, Scale
from lab.bench.peers import Peer
from lab.bench.results import Results
from lab.bench.rows import LONG_ROAD

REST: Final = 0.2
"""Seconds for which a peer must be quiet before the next one is measured."""

REST_LIMIT: Final = 5.0
"""Seconds after which it is measured all the same."""

QUIET: Final = 0.1
"""Part of a core that a quiet peer may use."""

FILE_SIZE: Final = 1_000_000
"""Bytes of the target's large file, which nothing here asks for."""


class Runner:
    """Fills ``results``. A measurement that fails is noted, and its peer is set up again."""

    def __init__(self, results: Results, scale: Scale, rounds: int) -> None:
        self.results = results
        self.scale = scale
        self.rounds = rounds
        self._say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)

    def run(self, classes: Sequence[type[Peer]], measurements: Sequence[Measurement], *, road: bool) -> None:
        """Measure every peer, alternating, round by round; all measurements want the same congestion control,
        line and target.

        ``road``: on the long road, not on the lab's own links.
        """
        if not measurements:
            return
        with self._peers(classes, measurements[0], road=road) as peers:
            for number in range(self.rounds):
                for place, measurement in enumerate(measurements):
                    for peer in rotated(peers, number + place):
                        if _applies(measurement, peer):
                            self._visit(peer, measurement, f"round {number + 1} of {self.rounds}")

    def _visit(self, peer: Peer, measurement: Measurement, which: str) -> None:
        began = time.monotonic()
        try:
            values = measurement.run(peer, self.scale)
        except (HostError, subprocess.TimeoutExpired, OSError) as error:
            self.results.fail(peer.title, f"{measurement.name}, {which}", str(error))
            self._say(f"{which}: {measurement.name}, {peer.title}: FAILED: {error}")
            self._renew(peer)
        else:
            self.results.record(peer.id, values)
            shown = ", ".join(f"{value:.4g}" for value in values.values())
            took = time.monotonic() - began
            self._say(f"{which}: {measurement.name}, {peer.title}: {shown} ({took:.1f} s)")
        wait_quiet(peer)

    def _renew(self, peer: Peer) -> None:
        try:
            peer.renew()
        except (HostError, subprocess.TimeoutExpired) as error:
            self.results.fail(peer.title, "setting it up anew", str(error))

    @contextlib.contextmanager
    def _peers(self, classes: Sequence[type[Peer]], like: Measurement, *, road: bool) -> Iterator[list[Peer]]:
        """Each peer that can be set up, in a lab of its own."""
        congestion_control = like.congestion
        with contextlib.ExitStack() as stack:
            peers: list[Peer] = []
            for kind in classes:
                lab = stack.enter_context(Lab(own_sessions=True))
                start_target(lab, file_size=FILE_SIZE, names=like.names and like.names())
                if road:
                    roads.lengthen(lab, like.line or LONG_ROAD)
                if like.prepare is not None:
                    like.prepare(lab)
                network = machine.network(lab)
                if congestion_control is not None:
                    del network["congestion control"]  # the row says it
                self.results.settings |= network
                try:
                    if congestion_control is not None:
                        congestion.use(lab, congestion_control)
                    peer = kind(lab)
                    seconds = peer.set_up()
                except (HostError, subprocess.TimeoutExpired) as error:
                    self.results.fail(kind.title, "setting it up", str(error))
                    self._say(f"{kind.title} cannot be set up: {error}")
                    continue
                self._say(f"{peer.title} is up after {seconds:.2f} s")
                peers.append(peer)
            yield peers


def _applies(measurement: Measurement, peer: Peer) -> bool:
    """Return whether there is something to measure."""
    if measurement.needs_ping and not peer.carries_ping:
        return False
    # Without a tunnel there is no program that starts or has memory.
    return not measurement.needs_tunnel or bool(peer.client_processes())


def wait_quiet(peer: Peer) -> None:
    """Return when the peer has dealt with what a measurement left, so that it is not in the next one."""
    until = time.monotonic() + REST_LIMIT
    while time.monotonic() < until:
        processes = [*peer.client_processes(), *peer.exit_processes()]
        before = usage.cpu_seconds(processes)
        time.sleep(REST)
        if usage.cpu_seconds(processes) - before < QUIET * REST:
            return


def rotated(peers: Sequence[Peer], by: int) -> list[Peer]:
    """The same peers, another one first: none always comes after the same other."""
    by %= max(1, len(peers))
    return [*peers[by:], *peers[:by]]
