"""Legs that join: labels, HMACs, and the window of numbers."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import HandshakeError
from halftunnel_vpn.protocol import join, wire
from halftunnel_vpn.protocol.join import (
    JOIN_WINDOW,
    LabelWindow,
    decode_token_join,
    encode_join,
    encode_join_reply,
    encode_token_join,
    verify_join,
    verify_join_reply,
)
from halftunnel_vpn.protocol.keys import Direction, SessionKeys
from halftunnel_vpn.protocol.wire import PacketType, as_uuid4

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM
CLIENT_NONCE = b"c" * 16
EXIT_NONCE = b"e" * 16
TOKEN = as_uuid4(b"t" * 16)


def refused(attempt: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(HandshakeError) as caught:
        attempt(*arguments)
    return caught.value.reason


@given(st.sampled_from(Direction), st.integers(0, 2**32 - 1), st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_a_leg_joins(direction: Direction, number: int, padding: bytes) -> None:
    keys = SessionKeys(b"s" * 32)
    packet = encode_join(keys, direction, number, CLIENT_NONCE, padding)
    assert verify_join(packet, keys, direction, number) == CLIENT_NONCE
    reply = encode_join_reply(keys, direction, number, CLIENT_NONCE, EXIT_NONCE, padding)
    assert verify_join_reply(reply, keys, direction, number, CLIENT_NONCE) == EXIT_NONCE


def test_the_exit_finds_the_leg_by_the_label_it_peeks_at(session_keys: SessionKeys) -> None:
    packet = encode_join(session_keys, UP, 7, CLIENT_NONCE, b"")
    window = LabelWindow(session_keys, UP)
    assert window.labels()[wire.peek(packet).session_id] == 7


def test_labels_look_like_uuids_and_never_repeat(session_keys: SessionKeys) -> None:
    labels = [
        make(session_keys, direction, number)
        for make in (join.label, join.reply_label)
        for direction in Direction
        for number in range(200)
    ]
    assert len(set(labels)) == 800
    assert all(uuid.UUID(bytes=label).version == 4 for label in labels)


def test_nothing_of_one_join_is_in_another(session_keys: SessionKeys) -> None:
    seen: set[bytes] = set()
    for direction in Direction:
        for number in (1, 2):
            nonces = [bytes([len(seen), number, end]) * 6 for end in (0, 1)]
            for packet in (
                encode_join(session_keys, direction, number, nonces[0][:16], b""),
                encode_join_reply(session_keys, direction, number, nonces[0][:16], nonces[1][:16], b""),
            ):
                values = {packet[4:20], packet[-32:-16], packet[-16:]}
                assert not values & seen
                seen |= values


def test_every_flipped_bit_and_every_cut_of_a_join_is_refused(session_keys: SessionKeys) -> None:
    packet = encode_join(session_keys, UP, 3, CLIENT_NONCE, b"padding")
    reply = encode_join_reply(session_keys, UP, 3, CLIENT_NONCE, EXIT_NONCE, b"padding")
    for whole, verify, arguments in (
        (packet, verify_join, (session_keys, UP, 3)),
        (reply, verify_join_reply, (session_keys, UP, 3, CLIENT_NONCE)),
    ):
        for bit in range(len(whole) * 8):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            assert refused(verify, flipped, *arguments) in ("join-bad-mac", "join-malformed")
        for cut in range(len(whole)):
            assert refused(verify, whole[:cut], *arguments) == "join-malformed"
        assert refused(verify, whole + b"x", *arguments) == "join-malformed"


def test_a_join_holds_for_its_session_direction_and_number_only(session_keys: SessionKeys) -> None:
    packet = encode_join(session_keys, UP, 3, CLIENT_NONCE, b"")
    assert refused(verify_join, packet, session_keys, UP, 4) == "join-unknown"
    assert refused(verify_join, packet, session_keys, DOWN, 3) == "join-bad-mac"
    assert (
        refused(verify_join, packet, SessionKeys(b"other session, thirty-two bytes!"), UP, 3)
        == "join-bad-mac"
    )


def test_a_reply_holds_for_its_request_only(session_keys: SessionKeys) -> None:
    reply = encode_join_reply(session_keys, UP, 3, CLIENT_NONCE, EXIT_NONCE, b"")
    assert refused(verify_join_reply, reply, session_keys, UP, 3, b"d" * 16) == "join-bad-mac"
    assert refused(verify_join_reply, reply, session_keys, UP, 4, CLIENT_NONCE) == "join-unknown"
    assert refused(verify_join_reply, reply, session_keys, DOWN, 3, CLIENT_NONCE) == "join-bad-mac"
    request = encode_join(session_keys, UP, 3, CLIENT_NONCE, b"")
    assert refused(verify_join_reply, request, session_keys, UP, 3, CLIENT_NONCE) == "join-bad-mac"
    assert refused(verify_join, reply, session_keys, UP, 3) == "join-bad-mac"


def test_joins_that_are_true_and_misshapen_are_refused(session_keys: SessionKeys) -> None:
    key, name = session_keys.join_key(UP), join.label(session_keys, UP, 3)
    for packet in (
        wire.encode_authenticated(PacketType.DATA, name, 0, 0, 0, CLIENT_NONCE, key),
        wire.encode_authenticated(PacketType.RECONNECT, name, 1, 0, 0, CLIENT_NONCE, key),
        wire.encode_authenticated(PacketType.RECONNECT, name, 0, 1, 0, CLIENT_NONCE, key),
        wire.encode_authenticated(PacketType.RECONNECT, name, 0, 0, 1, CLIENT_NONCE, key),
        wire.encode_authenticated(PacketType.RECONNECT, name, 0, 0, 0, CLIENT_NONCE[:15], key),
        wire.encode_authenticated(PacketType.RECONNECT, name, 0, 0, 0, bytes(5000), key),
    ):
        assert refused(verify_join, packet, session_keys, UP, 3) == "join-malformed"


def test_the_first_downstream_leg_shows_its_token() -> None:
    packet = encode_token_join(TOKEN, b"random padding")
    assert decode_token_join(memoryview(packet)) == TOKEN
    assert wire.peek(packet).session_id == TOKEN


def test_a_bad_token_join_is_refused(session_keys: SessionKeys) -> None:
    good = encode_token_join(TOKEN, b"padding")
    for bad in (
        good[:-1],
        good + b"x",
        b"",
        wire.encode_header(PacketType.HANDSHAKE, TOKEN, 0, 0, 0, 0),
        wire.encode_header(PacketType.RECONNECT, TOKEN, 1, 0, 0, 0),
        wire.encode_header(PacketType.RECONNECT, TOKEN, 0, 1, 0, 0),
        wire.encode_header(PacketType.RECONNECT, TOKEN, 0, 0, 1, 0),
        encode_token_join(TOKEN, bytes(wire.MAX_FIRST_MESSAGE)),
        encode_join(session_keys, DOWN, 1, CLIENT_NONCE, b""),
    ):
        assert refused(decode_token_join, bad) == "join-malformed"


def test_a_window_begins_behind_the_handshake(session_keys: SessionKeys) -> None:
    window = LabelWindow(session_keys, UP)
    assert sorted(window.labels().values()) == list(range(1, JOIN_WINDOW + 1))
    assert window.labels()[join.label(session_keys, UP, 9)] == 9
    assert refused(window.use, 0) == "join-replayed"


def test_a_number_is_accepted_once(session_keys: SessionKeys) -> None:
    window = LabelWindow(session_keys, UP)
    removed, added = window.use(1)
    assert removed == [join.label(session_keys, UP, 1)]
    assert added == {join.label(session_keys, UP, JOIN_WINDOW + 1): JOIN_WINDOW + 1}
    assert refused(window.use, 1) == "join-replayed"


def test_numbers_may_arrive_out_of_order(session_keys: SessionKeys) -> None:
    window = LabelWindow(session_keys, UP)
    window.use(5)
    assert window.use(3) == ([join.label(session_keys, UP, 3)], {})
    assert refused(window.use, 3) == "join-replayed"
    window.use(4)


def test_numbers_far_below_the_highest_are_gone(session_keys: SessionKeys) -> None:
    window = LabelWindow(session_keys, UP)
    window.use(JOIN_WINDOW)
    removed, _ = window.use(JOIN_WINDOW + 2)
    gone = [join.label(session_keys, UP, number) for number in (JOIN_WINDOW + 2, 1, 2)]
    assert removed == gone
    assert refused(window.use, 2) == "join-replayed"
    window.use(3)


def test_numbers_far_above_the_highest_are_unknown(session_keys: SessionKeys) -> None:
    window = LabelWindow(session_keys, UP)
    assert refused(window.use, JOIN_WINDOW + 1) == "join-unknown"
    window.use(JOIN_WINDOW)
    window.use(JOIN_WINDOW + 1)


@given(st.lists(st.integers(0, 200), max_size=40))
@settings(max_examples=30, deadline=None)
def test_what_a_window_reports_keeps_a_table_right(numbers: list[int]) -> None:
    window = LabelWindow(SessionKeys(b"s" * 32), DOWN)
    table = window.labels()
    used = {0}
    for number in numbers:
        highest = max(used)
        acceptable = number not in used and highest - JOIN_WINDOW < number <= highest + JOIN_WINDOW
        assert (number in table.values()) == acceptable
        if acceptable:
            removed, added = window.use(number)
            for label in removed:
                del table[label]
            table |= added
            used.add(number)
        else:
            refused(window.use, number)
        assert table == window.labels()
        assert len(table) <= 2 * JOIN_WINDOW
