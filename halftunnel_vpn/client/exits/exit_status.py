"""The exits for the status, as ``control/status_schema.py`` describes them."""

from __future__ import annotations

from halftunnel_vpn.client.exits.exit_ranking import ExitRanking
from halftunnel_vpn.control.status_schema import ExitOverview, ExitState


def exit_statuses(ranking: ExitRanking, in_use: str | None) -> list[ExitOverview]:
    """Return every exit, the preferred one first. ``in_use`` has a session now; None: none has."""
    found = []
    for name in ranking.names:
        known = ranking.known[name]
        if name == in_use:
            state = ExitState.IN_USE
        elif not known.was_tried:
            state = ExitState.UNKNOWN
        else:
            state = ExitState.READY if known.problem is None else ExitState.UNREACHABLE
        problem = None if state is ExitState.IN_USE else known.problem
        found.append(ExitOverview(name=name, state=state, round_trip=known.round_trip, sentence=problem))
    return found
