"""Who may connect when: time and use are arguments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from halftunnel_vpn.config.clients import ClientEntry, changed_entry, parse_client_entry
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.protocol.handshake_payloads import ExitStatus
from halftunnel_vpn.server.accounting.accounts import Accounts, day_of
from halftunnel_vpn.server.accounting.client_terms import refusal
from halftunnel_vpn.server.accounting.ledger import KEPT_DAYS, Ledger
from halftunnel_vpn.server.accounting.meters import Meters
from halftunnel_vpn.timers import Wheel

KEY = bytes(range(32))
TEXT = 'name = "laptop"\npublic_key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="\nadded = "2026-01-01"\n'


def entry(**terms) -> ClientEntry:
    return ClientEntry(name="laptop", public_key=KEY, **terms)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class Rig:
    """Accounts of one client, whose clocks a test moves."""

    def __init__(self, tmp_path, terms: ClientEntry, wall: float) -> None:
        self.now, self.wall = 1000.0, wall
        self.terms: ClientEntry | None = terms
        self.online = {"laptop"}
        self.connected = {"laptop"}
        self.counters = Counters()
        self.meters = Meters(Wheel(lambda deadline: None), lambda: self.now)
        self.path = tmp_path / "usage.sqlite"
        self.accounts = Accounts(
            self.meters,
            Ledger(self.path, self.counters),
            entry_of=lambda name: self.terms if name == "laptop" else None,
            in_session=lambda: self.online,
            has_legs=lambda client: client in self.connected,
            cut_off=self.online.discard,
        )
        self.accounts.begin(self.now, wall)

    def use(self, sent: int, received: int) -> None:
        self.meters.of("laptop").sent += sent
        self.meters.of("laptop").received += received

    def pass_time(self, **span) -> None:
        seconds = timedelta(**span).total_seconds()
        self.now += seconds
        self.wall += seconds
        self.accounts.collect(self.now, self.wall)


def test_the_last_day_counts_whole_also_across_the_end_of_a_month(tmp_path):
    rig = Rig(tmp_path, entry(expires="2026-01-31"), at("2026-01-31T23:59:58"))
    rig.pass_time(seconds=1)
    assert rig.online and rig.accounts.refusal_of("laptop") is None
    rig.pass_time(seconds=1)
    assert day_of(rig.wall) == "2026-02-01"
    assert not rig.online and rig.accounts.refusal_of("laptop") is ExitStatus.EXPIRED
    rig.terms = entry(expires="2026-02-28")
    assert rig.accounts.refusal_of("laptop") is None


def test_a_quota_ends_sessions_and_a_new_month_begins_at_nothing(tmp_path):
    rig = Rig(tmp_path, entry(quota=1000), at("2026-02-28T12:00:00"))
    rig.use(400, 500)
    rig.pass_time(seconds=1)
    assert rig.online and rig.accounts.rates_of("laptop") == (400.0, 500.0)
    rig.use(100, 0)
    rig.pass_time(seconds=1)
    assert not rig.online and rig.accounts.refusal_of("laptop") is ExitStatus.QUOTA_USED_UP
    assert rig.accounts.of_month("laptop") == (500, 500)
    rig.pass_time(days=1)
    assert rig.accounts.refusal_of("laptop") is None
    assert rig.accounts.of_month("laptop") == rig.accounts.of_day("laptop") == (0, 0)


def test_a_client_whose_session_waits_without_legs_is_not_seen(tmp_path):
    rig = Rig(tmp_path, ClientEntry(name="laptop", public_key=bytes(32)), 5000.0)
    rig.connected.clear()
    rig.accounts.collect(1001.0, 5001.0)
    assert rig.accounts.last_seen("laptop") is None
    rig.connected.add("laptop")
    rig.accounts.collect(1002.0, 5002.0)
    assert rig.accounts.last_seen("laptop") == 5002.0


def test_when_a_client_was_seen_is_forgotten_with_its_figures(tmp_path):
    rig = Rig(tmp_path, entry(), at("2026-03-30T10:00:00"))
    rig.use(10, 20)
    rig.pass_time(seconds=1)
    rig.accounts.close(rig.now, rig.wall)
    for days, is_known in ((KEPT_DAYS, True), (KEPT_DAYS + 2, False)):
        later = Rig(tmp_path, entry(), rig.wall + days * 86400)
        later.online.clear()
        assert later.accounts.last_seen("laptop") is not None
        later.use(1, 1)
        later.accounts.close(later.now, later.wall)
        again = Rig(tmp_path, entry(), later.wall)
        assert (again.accounts.last_seen("laptop") is not None) is is_known


def test_figures_survive_a_restart_and_days_add_up_to_months(tmp_path):
    rig = Rig(tmp_path, entry(), at("2026-03-30T10:00:00"))
    rig.use(10, 20)
    rig.pass_time(days=1)
    rig.use(1, 2)
    rig.accounts.close(rig.now, rig.wall)
    again = Rig(tmp_path, entry(), rig.wall)
    assert again.accounts.of_day("laptop") == (11, 22), "both were collected on the 31st"
    again.use(5, 5)
    again.accounts.close(again.now, again.wall + 86400)
    third = Rig(tmp_path, entry(), rig.wall + 86400)
    assert third.accounts.of_month("laptop") == third.accounts.of_day("laptop") == (5, 5)
    assert third.accounts.last_seen("laptop") is not None


def test_what_cannot_be_written_is_kept_for_the_next_time(tmp_path):
    rig = Rig(tmp_path, entry(), at("2026-03-30T10:00:00"))
    ledger = Ledger(tmp_path / "nowhere" / "usage.sqlite", rig.counters)
    ledger.day = "2026-03-30"
    ledger.add("laptop", 7, 8)
    batch = ledger.take()
    assert not ledger.write(batch, "2025-01-01") and rig.counters.dropped["usage-not-saved"] == 1
    ledger.put_back(batch)
    ledger.add("laptop", 1, 1)
    assert ledger.take().used == {("laptop", "2026-03-30"): (8, 9)}


def test_a_file_that_is_no_database_is_put_aside(tmp_path):
    (tmp_path / "usage.sqlite").write_bytes(b"x" * 5000)
    rig = Rig(tmp_path, entry(), at("2026-03-30T10:00:00"))
    rig.use(1, 1)
    rig.accounts.close(rig.now, rig.wall)
    assert (tmp_path / "usage.broken").exists()
    assert Rig(tmp_path, entry(), rig.wall).accounts.of_month("laptop") == (1, 1)


@pytest.mark.parametrize(
    ("terms", "used", "expected"),
    [
        ({}, 10**18, None),
        ({"disabled": True, "expires": "2020-01-01"}, 0, ExitStatus.DISABLED),
        ({"expires": "2026-05-04"}, 0, None),
        ({"expires": "2026-05-03"}, 0, ExitStatus.EXPIRED),
        ({"quota": 5}, 4, None),
        ({"quota": 5}, 5, ExitStatus.QUOTA_USED_UP),
    ],
)
def test_terms(terms, used, expected):
    assert refusal(entry(**terms), "2026-05-04", used) is expected


def test_changes_of_a_file_are_read_back_and_wrong_ones_leave_it():
    changed = changed_entry(TEXT, {"quota": "100GB/month", "rate": "20mbit", "disabled": True}, source="f")
    read = parse_client_entry(changed, source="f")
    assert (read.quota, read.rate, read.disabled, read.added) == (10**11, 2.5e6, True, "2026-01-01")
    lifted = changed_entry(changed, {"quota": None, "rate": None, "disabled": None}, source="f")
    assert parse_client_entry(lifted, source="f") == parse_client_entry(TEXT, source="f")
    for wrong in ({"expires": "2026-02-30"}, {"quota": "many"}, {"rate": "1bit"}, {"rate": "20mbyte"}):
        with pytest.raises(ConfigError):
            changed_entry(TEXT, wrong, source="f")
