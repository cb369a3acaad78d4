"""Plain integers by label."""

from __future__ import annotations

from halftunnel_vpn.counters import Counters


def test_what_was_never_counted_is_zero():
    counters = Counters()
    assert counters.dropped["ip-bad-checksum"] == 0
    assert counters.counted["handshakes"] == 0


def test_drops_and_events_are_kept_apart_and_add_up():
    counters = Counters()
    counters.drop("ip-bad-checksum")
    counters.drop("ip-bad-checksum", 3)
    counters.count("bytes-sent", 1500)
    counters.count("bytes-sent")
    assert counters.dropped == {"ip-bad-checksum": 4}
    assert counters.counted == {"bytes-sent": 1501}


def test_two_components_do_not_share_their_numbers():
    one, other = Counters(), Counters()
    one.drop("x")
    assert not other.dropped
