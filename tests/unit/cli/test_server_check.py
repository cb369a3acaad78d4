"""What `htvpn server check` makes of a firewall, of certificates and of kernel settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from halftunnel_vpn.cli import server_check
from halftunnel_vpn.client.diagnosis.finding import Outcome
from halftunnel_vpn.config.server import parse_server
from halftunnel_vpn.protocol.certificates import make_self_signed

DROPS = {"chain": {"hook": "input", "policy": "drop", "name": "input"}}


def rule(match: object) -> dict:
    return {"rule": {"expr": [{"match": {"op": "==", "right": match}}, {"accept": None}]}}


@pytest.mark.parametrize(
    ("ruleset", "outcome", "words"),
    [
        ([], Outcome.OK, "drops no incoming"),
        ([{"chain": {"hook": "input", "policy": "accept"}}], Outcome.OK, "drops no incoming"),
        ([DROPS, rule(443), rule(8443)], Outcome.OK, "443 and 8443"),
        ([DROPS, rule({"set": [22, 443, 8443]})], Outcome.OK, "443 and 8443"),
        ([DROPS, rule({"range": [400, 9000]})], Outcome.OK, "443 and 8443"),
        ([DROPS, rule(443)], Outcome.WARNING, "'ufw allow 8443/tcp'"),
        ([DROPS, rule(84430), rule(443)], Outcome.WARNING, "TCP port 8443"),
    ],
)
def test_a_firewall_that_names_no_port_of_the_exit_is_pointed_out(ruleset, outcome, words):
    finding = server_check.judge_firewall(ruleset, [443, 8443])
    assert finding.outcome is outcome and words in finding.text


@pytest.mark.parametrize(
    ("setting", "outcome"),
    [("1\t0", Outcome.WARNING), ("0\t2147483647", Outcome.OK), ("", Outcome.SKIPPED)],
)
def test_pings_need_a_setting_of_the_kernel(tmp_path, setting, outcome):
    (tmp_path / "groups").write_text(setting)
    assert server_check.check_pings(tmp_path / "groups").outcome is outcome


def test_the_clock_is_asked_for():
    assert server_check.check_clock().outcome in (Outcome.OK, Outcome.WARNING)


MADE = datetime(2030, 1, 1, tzinfo=UTC)
DAY = 86400

SERVER = """
[server]
private_key = "exit.key"
[listen.upstream]
address = "::"
port = 443
path = "/up"
certificate = "up.pem"
certificate_key = "up.key"
[listen.downstream]
address = "127.0.0.1"
port = 8443
path = "/down"
tls = false
[public.upstream]
urls = ["wss://a.example.org/up"{more}]
[public.downstream]
urls = ["wss://b.example.net/down"]
"""


@pytest.mark.parametrize(
    ("days", "more", "outcome", "words"),
    [
        (10, "", Outcome.OK, "expires in 80 days"),
        (80, "", Outcome.WARNING, "expires in 10 days"),
        (95, "", Outcome.FAILED, "expired 5 days ago"),
        (10, ', "wss://c.example.org/up"', Outcome.FAILED, "is not for c.example.org"),
    ],
)
def test_certificates_last_and_are_for_the_names_of_the_urls(tmp_path, days, more, outcome, words):
    made = make_self_signed("a.example.org", not_before=MADE, not_after=MADE + timedelta(days=90))
    (tmp_path / "up.pem").write_bytes(made.certificate)
    config = parse_server(SERVER.replace("{more}", more))
    up, down = server_check.check_certificates(tmp_path, config, MADE.timestamp() + days * DAY)
    assert up.outcome is outcome and words in up.text
    assert down.outcome is Outcome.SKIPPED
