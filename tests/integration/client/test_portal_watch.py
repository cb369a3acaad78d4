"""When a captive portal is looked for."""

from __future__ import annotations

import pytest

from halftunnel_vpn.client.supervisor.captive_portal import PROBE_INTERVAL, PortalWatch
from halftunnel_vpn.config.client import parse_client

FOREIGN = "certificate-not-trusted"


@pytest.fixture
def profile(profile_text):
    """A profile whose first road leads to this machine, where nothing listens."""
    text = profile_text.replace("a.example.org", "127.0.0.99")
    return lambda *more: parse_client("\n".join([text, *more]))


async def test_nobody_is_asked_too_often_nor_without_need(profile, counters):
    now = 100.0
    watch = PortalWatch(counters, lambda: now)
    for reason in ("name-not-resolved", "connection-refused", "connection-refused"):
        assert await watch.check(profile(), reason) is None
    assert counters.counted["portal-probes"] == 1
    now += PROBE_INTERVAL
    await watch.check(profile(), "connection-refused")
    watch.forget()
    await watch.check(profile(), "connection-refused")
    assert counters.counted["portal-probes"] == counters.dropped["portal-probe-unanswered"] == 3


@pytest.mark.parametrize(
    "more", [("[protection]", "portal_probe = false"), ("[proxy]", 'url = "http://192.0.2.1:3128"')]
)
async def test_nobody_is_asked_where_that_is_off_or_tells_nothing(profile, counters, more):
    assert await PortalWatch(counters, lambda: 0.0).check(profile(*more), FOREIGN) is None
    assert not counters.counted
