"""A profile, and a name server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from lab.loopback_names import NameServer, loopback_name_server
from lab.profiles import LEAST

from halftunnel_vpn.counters import Counters


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def profile_text() -> str:
    """A profile that says only what must be said, and two URLs downstream."""
    return LEAST


@pytest.fixture
async def name_server() -> AsyncIterator[NameServer]:
    """A name server on loopback."""
    async with loopback_name_server() as made:
        yield made
