"""Which answers count as a captive portal, and the advice to the user."""

from __future__ import annotations

import pytest

from halftunnel_vpn.client.supervisor.captive_portal import Portal, judge, may_be_portal

NAMES = ("a.example.org", "front.example.net")
FOREIGN = "certificate-not-trusted"
LOST = "direction-lost"


def answer(status, location=None):
    lines = [f"HTTP/1.1 {status} Whatever", "Server: x", "no header at all"]
    if location is not None:
        lines.append(f"LOCATION: {location} ")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("reason", ["connect-timeout", FOREIGN])
def test_a_way_to_another_site_is_a_portals(status, reason):
    found = judge(answer(status, "http://Login.Hotel.example:8080/?to=x"), NAMES, reason=reason)
    assert found == Portal("login.hotel.example")


@pytest.mark.parametrize(
    "location", ["http://10.0.0.1/login", "//portal.test/", "https://[fd00::1]/", "https://org/"]
)
def test_a_way_to_an_address_or_without_a_scheme_counts_too(location):
    assert judge(answer(302, location), NAMES, reason="tls-failed") is not None


@pytest.mark.parametrize(
    "location",
    [
        "https://a.example.org/",
        "https://A.EXAMPLE.ORG./",
        "https://www.example.org/",
        "https://example.net/",
        "/somewhere",
        "",
        "http://[broken/",
        "http://evil\x1bname.test/",
    ],
)
def test_a_sites_own_ways_are_none(location):
    assert judge(answer(301, location), NAMES, reason="connection-refused") is None


def test_addresses_are_the_same_only_as_a_whole():
    assert judge(answer(302, "http://192.0.2.1/"), ("10.0.2.1",), reason=LOST) == Portal("192.0.2.1")
    assert judge(answer(302, "https://10.0.2.1/"), ("10.0.2.1",), reason=LOST) is None


def test_the_status_that_says_so():
    assert judge(answer(511), NAMES, reason="connect-timeout") == Portal()


@pytest.mark.parametrize("head", [answer(200), answer(302, "/login"), answer(302)])
def test_a_page_beside_a_foreign_certificate_is_perhaps_one(head):
    assert judge(head, NAMES, reason=FOREIGN) == Portal(is_sure=False)
    assert judge(head, NAMES, reason="connection-refused") is None


@pytest.mark.parametrize("head", [answer(404), answer(503), answer(101), b"SSH-2.0-x\r\n\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("reason", ["connection-refused", FOREIGN])
def test_anything_else_is_no_verdict(head, reason):
    assert judge(head, NAMES, reason=reason) is None


def test_reasons_that_may_be_a_portal():
    for reason in (FOREIGN, "http-status-302", "connect-timeout", LOST):
        assert may_be_portal(reason)
    for reason in ("name-not-resolved", "network-unreachable", ""):
        assert not may_be_portal(reason)


def test_people_are_told_what_to_do():
    sure, unsure = Portal("login.example"), Portal(is_sure=False)
    assert sure.sentence("Why.", is_blocked=True, goes_on=True) == (
        "A captive portal stands in the way (it sends to login.example): run `htvpn portal`, open any "
        "http:// page in a browser, sign in; the tunnel comes up by itself."
    )
    assert sure.sentence("Why.", is_blocked=False, goes_on=False).endswith(
        "(it sends to login.example): open any http:// page in a browser, sign in; then run `htvpn up` again."
    )
    assert unsure.sentence("Why.", is_blocked=True, goes_on=True) == (
        "A captive portal seems to stand in the way: run `htvpn portal`, open any http:// page in a browser, "
        "sign in; the tunnel comes up by itself. If there is no such page: Why."
    )
