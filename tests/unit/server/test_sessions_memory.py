"""The memory budgets of an exit's clients: one for all sessions of a client, as long as it has any."""

from __future__ import annotations

from halftunnel_vpn.server.exit_limits import SHARE_OF_CLIENT, SessionsMemory
from halftunnel_vpn.server.fairness import Fairness


def test_all_sessions_of_a_client_share_one_budget_below_that_of_the_exit():
    fairness, memory = Fairness(), SessionsMemory(4000)
    first, second, other = (fairness.share_of(client) for client in ("busy", "busy", "other"))
    budget = memory.of_client(first)
    assert memory.of_client(second) is budget
    assert memory.of_client(other) is not budget
    budget.take(100)
    assert memory.total.used == 100


def test_a_new_limit_reaches_the_budgets_of_clients_with_sessions():
    fairness, memory = Fairness(), SessionsMemory(4000)
    share = fairness.share_of("busy")
    budget = memory.of_client(share)
    memory.set_limit(8000)
    assert budget.limit == 8000 // SHARE_OF_CLIENT
    assert memory.total.limit == 8000


def test_a_client_without_sessions_leaves_no_budget():
    fairness, memory = Fairness(), SessionsMemory(4000)
    memory.of_client(fairness.share_of("gone"))
    assert not memory._of_client
