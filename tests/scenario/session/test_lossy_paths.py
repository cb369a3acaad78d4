"""A path that loses is left to TCP: all of its legs, those that join later, and no others."""

from __future__ import annotations

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.lossy_paths import LOSSY_FOR
from halftunnel_vpn.session.pacing import Phase

UP = Direction.UPSTREAM


@pytest.fixture
def legs(make_pair):
    """The pair, and its upstream legs by the client's side: two of one path and one of another."""
    pair = make_pair(3, 1)
    ends = pair.ends(pair.client, UP)
    for end, name in zip(ends, ("one", "one", "other"), strict=True):
        end.state.name = name
    return pair, ends


def phase(end) -> Phase:
    return end.state.under_way.pacer.phase


def test_every_leg_of_the_path_gives_up_its_pace(legs):
    pair, (leg, twin, other) = legs
    paces = []
    twin.set_pace = paces.append
    twin.state.under_way.pacer.pace = 1e6
    pair.client.leg_loses(leg.state, pair.now)
    assert phase(leg) is phase(twin) is Phase.LOSSY and phase(other) is Phase.FREE
    assert paces == [0.0] and not twin.state.under_way.pacer.pace


@pytest.mark.parametrize(("later", "expected"), [(LOSSY_FOR - 1, Phase.LOSSY), (LOSSY_FOR + 1, Phase.FREE)])
def test_a_leg_that_joins_later_knows_it_for_a_while(legs, later, expected):
    pair, (leg, *_) = legs
    # legs of this pair have no names, as at the exit those of one address have the same
    leg.state.name = ""
    pair.client.leg_loses(leg.state, pair.now)
    pair.advance(later)
    pair.add_leg(UP)
    assert phase(pair.ends(pair.client, UP)[-1]) is expected
