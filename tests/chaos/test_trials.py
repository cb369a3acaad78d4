"""What is done to roads, exits and front ends in mid-transfer, and what users notice of it: nothing."""

from __future__ import annotations

import pytest
from lab.chaos.trials import TRIALS

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]


@pytest.mark.parametrize("name", TRIALS)
def test_nothing_is_lost(name, outcome_of, capsys):
    outcome = outcome_of(name)
    with capsys.disabled():
        print(f"\n{outcome.line()}")
    assert outcome.errors == []
    assert outcome.figures
