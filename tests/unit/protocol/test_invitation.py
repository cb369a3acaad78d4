"""Invitations as links: short, whole or refused, and without what belongs to the client."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.protocol.invitation import MAX_LINK, Invitation, InvitedPath, decode_link, encode_link

PATH = "/" + base64.urlsafe_b64encode(bytes(range(18))).decode()
PLAIN = Invitation(
    "laptop",
    bytes(range(32)),
    bytes(16),
    InvitedPath(f"wss://a.example.org{PATH}", b"\1" * 32),
    InvitedPath(f"wss://b.example.net:8443{PATH[::-1][:-1].rjust(25, '/')}", b"\2" * 32),
)
HOST = st.text(string.ascii_lowercase + ".-:0123456789", min_size=1, max_size=20)
PINS = st.sampled_from([b"", b"\1" * 32, b"\2" * 32])
PATHS = st.builds(
    lambda scheme, host, path, pin: InvitedPath(f"{scheme}://{host}{path}", pin),
    st.sampled_from(["ws", "wss"]), HOST, st.sampled_from([PATH, "/x", "/a/b?c", "/" + "_" * 24]), PINS,
)  # fmt: skip


def test_an_ordinary_link_is_short_enough_and_tells_all():
    link = encode_link(PLAIN)
    assert len(link) <= MAX_LINK and link.startswith("htvpn://")
    assert decode_link(link) == decode_link(f"  {link}\n") == PLAIN


SECRETS = st.binary(min_size=16, max_size=16)


@given(st.builds(Invitation, st.text("abc-", max_size=9), st.just(bytes(32)), SECRETS, PATHS, PATHS))
def test_what_fits_comes_back_as_it_was(invitation):
    try:
        link = encode_link(invitation)
    except ConfigError as error:
        assert "too long for an invitation" in str(error)
        return
    assert decode_link(link) == invitation


def test_a_link_that_would_be_too_long_is_refused():
    with pytest.raises(ConfigError, match="add-client"):
        encode_link(PLAIN._replace(upstream=InvitedPath(f"wss://{'a' * 80}.example.org{PATH}", b"\1" * 32)))


def test_no_character_can_be_changed_or_lost():
    link = encode_link(PLAIN)
    for position in range(len("htvpn://"), len(link)):
        other = "A" if link[position] != "A" else "B"
        for altered in (
            link[:position] + other + link[position + 1 :],
            link[:position] + link[position + 1 :],
        ):
            try:
                assert decode_link(altered) == PLAIN, "bits of the last character that stand for nothing"
                assert position == len(link) - 1 and len(altered) == len(link)
            except ConfigError as error:
                assert "copy it again" in str(error)


@pytest.mark.parametrize("text", ["", "https://a.example", "htvpn://", "htvpn://é", "htvpn://" + "A" * 400])
def test_what_is_no_link_gets_one_sentence(text):
    with pytest.raises(ConfigError) as raised:
        decode_link(text)
    assert "\n" not in str(raised.value)
