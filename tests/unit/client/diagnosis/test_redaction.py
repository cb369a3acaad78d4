"""What a bug report takes out of texts, and what it leaves so that they stay useful."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.client.diagnosis.redaction import Redaction


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("dialled wss://a.example.org:8443/secret/path", "dialled wss://<host-1>:8443/<path-1>"),
        ("the name mail.example.org has no address", "the name <host-1> has no address"),
        ("from 198.51.101.7 via 192.168.1.1", "from <address-1> via 192.168.1.1"),
        ("default via 2a01:4f8::1 dev eth0", "default via <address-1> dev eth0"),
        ("fd48:5456:504e::53 and fe80::1", "fd48:5456:504e::53 and fe80::1"),
        ("2026-11-29 16:30:12 INFO client: up", "2026-11-29 16:30:12 INFO client: up"),
        ("halftunnel.service: see /etc/resolv.conf", "halftunnel.service: see /etc/resolv.conf"),
        ("Python 3.11.7, Linux 6.18.44", "Python 3.11.7, Linux 6.18.44"),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----", "<pem-1>"),
    ],
)
def test_by_form(text: str, safe: str) -> None:
    assert Redaction().text(text) == safe


def test_the_same_secret_has_the_same_placeholder_and_a_known_one_goes_wherever_it_stands() -> None:
    redaction = Redaction({"name": ["printer"], "path": ["s3cr3t-path"]})
    assert redaction.text("a.example.org b.example.org a.example.org") == "<host-1> <host-2> <host-1>"
    assert redaction.text("GET /s3cr3t-path for printer") == "GET /<path-1> for <name-1>"
    assert redaction.text("A.Example.ORG") == "<host-1>"


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["{}", 'key = "{}"', "key={},", "({})"]))
def test_no_key_stays(key: bytes, around: str) -> None:
    for text in (base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode().rstrip("=")):
        assert text not in Redaction().text(around.format(text))


@given(st.text(max_size=300))
def test_no_text_raises(text: str) -> None:
    Redaction({"name": ["name"]}).text(text)
