"""The exit goes away under load, and comes back: flows end with a reset, and the client helps itself."""

from __future__ import annotations

import time
from typing import Final

from lab.chaos.outcome import Outcome, traffic, trial, wait
from lab.topology import Lab
from lab.tunnel import LabTunnel

FIRST: Final = 5_000_000
"""Bytes that each direction carries before the exit goes."""

PATIENCE: Final = 90.0
"""Seconds for what has no figure of its own: a pause of 60 between two attempts may just have begun."""


def restart_exit(
    lab: Lab, tunnel: LabTunnel, *, kill: bool, away: float = 1.0, size: int = 20_000_000
) -> Outcome:
    """End the exit of a running tunnel, by SIGTERM or SIGKILL; start it ``away`` seconds later.

    Its flows must end with resets soon after it is back (a stopped one tells at once), the client must make
    a new session by itself, and ``size`` bytes each way must pass through that.
    """
    outcome = Outcome("exit killed under load" if kill else "exit restarted under load")
    with trial(outcome, tunnel):
        session = _session(tunnel)
        with traffic(lab, 1 << 40) as first:
            first.wait_moving(FIRST, PATIENCE)
            assert tunnel.exit is not None
            gone = time.monotonic()
            if kill:
                tunnel.exit.kill()
                tunnel.exit.wait(PATIENCE)
            elif (status := tunnel.stop_exit()) != 0:
                outcome.errors.append(f"the exit ended with {status}:\n{tunnel.exit_output()}")
            stopped = time.monotonic() - gone
            time.sleep(away)
            tunnel.start_exit()
            back = time.monotonic()
            wait(lambda: first.is_done, PATIENCE, "the flows of the old exit end")
            ended = time.monotonic()
            for way, transfer in first.transfers.items():
                if not any(_is_reset(error) for error in transfer.errors):
                    outcome.errors.append(f"the {way.name.lower()} flow was not reset: {transfer.errors}")
        wait(lambda: _is_connected_anew(tunnel, session), PATIENCE, "a new session is made")
        connected = time.monotonic()
        with traffic(lab, size) as second:
            second.wait_whole(outcome, PATIENCE)
        outcome.figures[:0] = [
            f"stopped in {stopped:.2f} s",
            f"flows reset {max(0.0, ended - back):.2f} s after it was back",
            f"new session after {max(0.0, connected - back):.2f} s",
        ]
    return outcome


def _is_reset(error: str) -> bool:
    return "reset" in error or "Broken pipe" in error


def _session(tunnel: LabTunnel) -> int:
    status = tunnel.status()
    return 0 if status is None else int(status.get("session", 0))


def _is_connected_anew(tunnel: LabTunnel, session: int) -> bool:
    status = tunnel.status()
    return status is not None and status["state"] == "connected" and status.get("session", 0) > session
