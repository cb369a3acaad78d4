"""The table of destinations that the exit connected to lately; time is what the test says it is."""

from __future__ import annotations

from halftunnel_vpn.flow.known_destinations import KNOWN_LIFETIME, MAX_KNOWN_DESTINATIONS, KnownDestinations

HERE = bytes((192, 0, 2, 1))


def test_a_success_counts_for_a_while_and_for_its_port_alone() -> None:
    known = KnownDestinations()
    known.add(HERE, 443, 10.0)
    assert known.contains(HERE, 443, 10.0 + KNOWN_LIFETIME - 0.1)
    assert not known.contains(HERE, 80, 10.0)
    assert not known.contains(HERE, 443, 10.0 + KNOWN_LIFETIME)
    assert len(known) == 0


def test_a_further_success_counts_again() -> None:
    known = KnownDestinations()
    known.add(HERE, 443, 0.0)
    known.add(HERE, 443, 200.0)
    assert known.contains(HERE, 443, 200.0 + KNOWN_LIFETIME - 0.1)


def test_a_failure_is_the_end_of_it() -> None:
    known = KnownDestinations()
    known.add(HERE, 443, 0.0)
    known.discard(HERE, 443)
    known.discard(HERE, 443)
    assert not known.contains(HERE, 443, 0.0)
    known.add(HERE, 443, 0.0)
    known.clear()
    assert not known.contains(HERE, 443, 0.0)


def test_the_table_is_bounded_and_the_oldest_success_goes() -> None:
    known = KnownDestinations()
    for port in range(MAX_KNOWN_DESTINATIONS):
        known.add(HERE, port, 0.0)
    known.add(HERE, 0, 1.0)
    known.add(HERE, 65535, 2.0)
    assert len(known) == MAX_KNOWN_DESTINATIONS
    assert known.contains(HERE, 0, 2.0) and not known.contains(HERE, 1, 2.0)
