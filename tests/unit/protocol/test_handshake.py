"""The handshake as packets: what each end learns, and everything that is refused."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import ConfigError, HalfTunnelError, HandshakeError
from halftunnel_vpn.protocol import handshake, wire
from halftunnel_vpn.protocol.handshake import (
    ClientHandshake,
    ClientHello,
    ExitHello,
    ExitStatus,
    HandshakeRefused,
    Offer,
    ReplayGuard,
    receive_hello,
)
from halftunnel_vpn.protocol.join import reply_label
from halftunnel_vpn.protocol.keys import Direction, KeyPair, SessionKeys, encode_key
from halftunnel_vpn.protocol.shaping_terms import TAKES_PADDING, ShapingMode, ShapingTerms
from halftunnel_vpn.protocol.wire import PacketType, as_uuid4

NOW = 1_700_000_000_000_000
HELLO = ClientHello(
    session_id=as_uuid4(b"s" * 16), join_token=as_uuid4(b"t" * 16), timestamp=NOW, nonce=b"n" * 16
)
WELCOME = ExitHello(
    ExitStatus.OK, NOW, b"N" * 16, max_streams=4096, stream_window=262144, idle_timeout=300, has_ipv6=True
)
CLIENT_EPHEMERAL = b"e" * 32
EXIT_EPHEMERAL = b"E" * 32
PACKET_ID = b"p" * 16

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
sixteen = st.binary(min_size=16, max_size=16)


@pytest.fixture
def begin(client: KeyPair, exit_keys: KeyPair) -> Callable[..., ClientHandshake]:
    def begin(padding: int = 0) -> ClientHandshake:
        return ClientHandshake(
            client, exit_keys.public, HELLO, CLIENT_EPHEMERAL, packet_id=PACKET_ID, padding=padding
        )

    return begin


def refused(attempt: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(HandshakeError) as caught:
        attempt(*arguments)
    return caught.value.reason


def accept(packet: bytes, exit_keys: KeyPair) -> tuple[Offer, ClientHello]:
    offer = receive_hello(packet, exit_keys)
    return offer, offer.open()


def test_two_ends_agree(begin: Callable[..., ClientHandshake], client: KeyPair, exit_keys: KeyPair) -> None:
    ours = begin()
    offer = receive_hello(memoryview(ours.message()), exit_keys)
    assert offer.client_public == client.public
    assert offer.open() == HELLO
    reply, exit_session = offer.answer(WELCOME, EXIT_EPHEMERAL)
    welcome, session = ours.finish(memoryview(reply))
    assert welcome == WELCOME
    assert session.secret == exit_session.secret
    nonces = HELLO.nonce, welcome.nonce
    for direction in Direction:
        assert session.leg_keys(direction, 0, *nonces) == exit_session.leg_keys(direction, 0, *nonces)


def test_the_messages_are_handshake_packets_with_names_of_their_own(
    begin: Callable[..., ClientHandshake], exit_keys: KeyPair
) -> None:
    message = begin().message()
    offer, _ = accept(message, exit_keys)
    reply, session = offer.answer(WELCOME, EXIT_EPHEMERAL)
    first, second = wire.decode(message), wire.decode(reply)
    assert first.type is second.type is PacketType.HANDSHAKE
    assert first.session_id == as_uuid4(PACKET_ID)
    assert second.session_id == reply_label(session, Direction.DOWNSTREAM, 0)
    assert first[2:5] == second[2:5] == (0, 0, 0)


def test_nothing_of_the_hellos_is_in_clear_and_nothing_is_on_both_roads(
    begin: Callable[..., ClientHandshake], client: KeyPair, exit_keys: KeyPair
) -> None:
    message = begin(padding=100).message()
    offer, hello = accept(message, exit_keys)
    reply, _ = offer.answer(WELCOME, EXIT_EPHEMERAL, padding=100)
    secrets = [
        hello.session_id,
        hello.join_token,
        hello.nonce,
        WELCOME.nonce,
        client.public,
        exit_keys.public,
    ]
    for secret in secrets:
        assert secret not in message
        assert secret not in reply
    # Magic, version, type and the zeros are all that the two have in common for longer than three bytes.
    body = reply[4:20] + reply[wire.HEADER_LENGTH :]
    assert not [body[at : at + 4] for at in range(len(body) - 3) if body[at : at + 4] in message]


def test_padding_makes_the_messages_longer_by_as_much(
    begin: Callable[..., ClientHandshake], exit_keys: KeyPair
) -> None:
    short, long = begin().message(), begin(padding=321).message()
    assert len(long) == len(short) + 321
    offer, hello = accept(long, exit_keys)
    assert hello == HELLO
    short_reply, _ = offer.answer(WELCOME, EXIT_EPHEMERAL)
    ours = begin(padding=321)
    offer, _ = accept(ours.message(), exit_keys)
    long_reply, _ = offer.answer(WELCOME, EXIT_EPHEMERAL, padding=1000)
    assert len(long_reply) == len(short_reply) + 1000
    assert ours.finish(long_reply)[0] == WELCOME


def test_too_much_padding_is_refused(begin: Callable[..., ClientHandshake], exit_keys: KeyPair) -> None:
    most = wire.MAX_FIRST_MESSAGE - len(begin().message())
    assert len(begin(padding=most).message()) == wire.MAX_FIRST_MESSAGE
    assert refused(begin, most + 1) == "handshake-too-long"
    assert refused(begin, 70_000) == "handshake-too-long"
    offer, _ = accept(begin().message(), exit_keys)
    with pytest.raises(HandshakeError) as caught:
        offer.answer(WELCOME, EXIT_EPHEMERAL, padding=wire.MAX_FIRST_MESSAGE - 100)
    assert caught.value.reason == "handshake-too-long"


def test_an_unknown_client_costs_one_dh_and_a_known_one_two_and_two(
    begin: Callable[..., ClientHandshake], exit_keys: KeyPair
) -> None:
    class Counting(KeyPair):
        __slots__ = ("count",)

        def dh(self, public: bytes) -> bytes:
            self.count += 1
            return super().dh(public)

    counting = Counting(exit_keys.private)
    counting.count = 0
    offer = receive_hello(begin().message(), counting)
    assert counting.count == 1
    offer.open()
    assert counting.count == 2
    offer.answer(WELCOME, EXIT_EPHEMERAL)
    assert counting.count == 2  # the other two are made with the ephemeral key


def test_every_flipped_bit_of_message_1_is_refused(
    begin: Callable[..., ClientHandshake], exit_keys: KeyPair
) -> None:
    message = begin(padding=3).message()
    for bit in range(len(message) * 8):
        flipped = bytearray(message)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refused(accept, bytes(flipped), exit_keys).startswith("handshake-")


def test_every_flipped_bit_of_message_2_is_refused(
    begin: Callable[..., ClientHandshake], exit_keys: KeyPair
) -> None:
    offer, _ = accept(begin().message(), exit_keys)
    reply, _ = offer.answer(WELCOME, EXIT_EPHEMERAL, padding=3)
    reasons = set()
    for bit in range(len(reply) * 8):
        flipped = bytearray(reply)
        flipped[bit // 8] ^= 1 << bit % 8
        reasons.add(refused(begin().finish, bytes(flipped)))
    assert reasons == {"handshake-malformed", "handshake-bad-tag", "handshake-wrong-label"}


def test_every_cut_of_either_message_is_refused(
    begin: Callable[..., ClientHandshake], exit_keys: KeyPair
) -> None:
    message = begin().message()
    offer, _ = accept(message, exit_keys)
    reply, _ = offer.answer(WELCOME, EXIT_EPHEMERAL)
    for cut in range(len(message)):
        assert refused(accept, message[:cut], exit_keys) == "handshake-malformed"
    for cut in range(len(reply)):
        assert refused(begin().finish, reply[:cut]) == "handshake-malformed"
    # The same with a length field that was made to fit: too short for Noise, or without its tag.
    for packet, attempt in ((message, lambda cut: accept(cut, exit_keys)), (reply, begin().finish)):
        body = packet[wire.HEADER_LENGTH :]
        header = wire.encode_header(PacketType.HANDSHAKE, packet[4:20], 0, 0, 0, 20)
        assert refused(attempt, header + body[:20]) == "handshake-too-short"


def test_what_is_no_handshake_packet_is_refused(
    begin: Callable[..., ClientHandshake], exit_keys: KeyPair
) -> None:
    message = begin().message()
    length = len(message) - wire.HEADER_LENGTH
    body = message[wire.HEADER_LENGTH :]
    for numbers in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        header = wire.encode_header(PacketType.HANDSHAKE, message[4:20], *numbers, length)
        assert refused(receive_hello, header + body, exit_keys) == "handshake-malformed"
    header = wire.encode_header(PacketType.RECONNECT, message[4:20], 0, 0, 0, length)
    assert refused(receive_hello, header + body, exit_keys) == "handshake-malformed"
    assert refused(receive_hello, b"GET / HTTP/1.1\r\n\r\n", exit_keys) == "handshake-malformed"
    assert refused(receive_hello, bytes(wire.MAX_FIRST_MESSAGE + 1), exit_keys) == "handshake-too-long"


def test_an_exit_with_another_key_does_not_understand(begin: Callable[..., ClientHandshake]) -> None:
    stranger = KeyPair(b"x" * 32)
    assert refused(receive_hello, begin().message(), stranger) == "handshake-bad-tag"


def test_an_impostor_of_the_exit_cannot_answer(
    begin: Callable[..., ClientHandshake], client: KeyPair, exit_keys: KeyPair
) -> None:
    # It knows the client and replies to a handshake of its own making, not to ours.
    stranger = KeyPair(b"x" * 32)
    theirs = ClientHandshake(client, stranger.public, HELLO, CLIENT_EPHEMERAL, packet_id=PACKET_ID)
    offer, _ = accept(theirs.message(), stranger)
    reply, _ = offer.answer(WELCOME, EXIT_EPHEMERAL)
    assert refused(begin().finish, reply) == "handshake-bad-tag"


def test_an_impostor_of_a_client_is_found_out_by_the_second_dh(client: KeyPair, exit_keys: KeyPair) -> None:
    class Impostor(KeyPair):
        """Shows the client's public key and has another private one."""

        __slots__ = ()

    impostor = Impostor(b"i" * 32)
    impostor.public = client.public
    message = ClientHandshake(
        impostor, exit_keys.public, HELLO, CLIENT_EPHEMERAL, packet_id=PACKET_ID
    ).message()
    offer = receive_hello(message, exit_keys)
    assert offer.client_public == client.public  # the claim
    assert refused(offer.open) == "handshake-bad-tag"


@pytest.mark.parametrize("status", [ExitStatus.CLOCK_SKEW, ExitStatus.OVERLOADED, ExitStatus.SESSION_LIMIT])
def test_a_refusal_says_why_and_what_time_it_is(
    begin: Callable[..., ClientHandshake], exit_keys: KeyPair, status: ExitStatus
) -> None:
    ours = begin()
    offer, _ = accept(ours.message(), exit_keys)
    reply, _ = offer.answer(replace(WELCOME, status=status), EXIT_EPHEMERAL)
    with pytest.raises(HandshakeRefused) as caught:
        ours.finish(reply)
    assert caught.value.exit_hello.status is status
    assert caught.value.exit_hello.wall_time == NOW
    assert caught.value.reason == f"handshake-refused-{status.name.lower().replace('_', '-')}"


def test_a_handshake_serves_once(begin: Callable[..., ClientHandshake], exit_keys: KeyPair) -> None:
    ours = begin()
    offer, _ = accept(ours.message(), exit_keys)
    with pytest.raises(HalfTunnelError):
        offer.open()
    reply, _ = offer.answer(WELCOME, EXIT_EPHEMERAL)
    with pytest.raises(HalfTunnelError):
        offer.answer(WELCOME, EXIT_EPHEMERAL)
    ours.finish(reply)
    with pytest.raises(HalfTunnelError):
        ours.finish(reply)


# --- the hellos inside ----------------------------------------------------------------------------


@given(sixteen, sixteen, u64, sixteen, u32, st.integers(0, 500))
@settings(max_examples=50, deadline=None)
def test_a_client_hello_comes_back(
    session_id: bytes, token: bytes, timestamp: int, nonce: bytes, capabilities: int, padding: int
) -> None:
    hello = ClientHello(as_uuid4(session_id), as_uuid4(token), timestamp, nonce, capabilities)
    assert ClientHello.decode(memoryview(hello.encode(padding))) == hello


@given(st.sampled_from(ExitStatus), u64, sixteen, u32, u32, u32, st.booleans(), u32, st.integers(0, 500))
@settings(max_examples=50, deadline=None)
def test_an_exit_hello_comes_back(
    status: ExitStatus,
    wall_time: int,
    nonce: bytes,
    max_streams: int,
    window: int,
    idle: int,
    has_ipv6: bool,
    capabilities: int,
    padding: int,
) -> None:
    hello = ExitHello(status, wall_time, nonce, max_streams, window, idle, has_ipv6, capabilities)
    assert ExitHello.decode(memoryview(hello.encode(padding))) == hello


terms = st.builds(ShapingTerms, st.sampled_from(ShapingMode), st.booleans(), u32, u32, u64)


@given(terms, st.integers(0, 500))
def test_shaping_terms_come_back_in_both_hellos(wish: ShapingTerms, padding: int) -> None:
    hello = replace(HELLO, capabilities=TAKES_PADDING, shaping=wish)
    assert ClientHello.decode(hello.encode(padding)) == hello
    answer = replace(WELCOME, capabilities=TAKES_PADDING, shaping=wish)
    assert ExitHello.decode(answer.encode(padding)) == answer


@given(terms, st.sampled_from(ShapingMode), u32)
def test_an_exit_never_grants_more_than_was_asked_for_or_than_it_allows(
    wish: ShapingTerms, most: ShapingMode, max_rate: int
) -> None:
    grant = wish.granted(most, max_rate)
    assert grant.mode <= wish.mode and grant.mode <= most
    assert not wish.rate or grant.rate <= wish.rate
    assert not max_rate or grant.rate <= max_rate
    assert grant[3:] == wish[3:]


def test_shaping_terms_of_a_later_version_are_read_and_short_ones_refused() -> None:
    value = ShapingTerms(ShapingMode.STRONG, True, 1, 2, 3).encode()
    assert ShapingTerms.decode(value + b"more") == ShapingTerms.decode(value)
    assert ShapingTerms.decode(b"\x09" + value[1:]).mode is ShapingMode.OFF
    assert ShapingTerms.decode(b"\x02" + value[1:]).mode is ShapingMode.SPLIT
    for cut in range(len(value)):
        assert refused(ShapingTerms.decode, value[:cut]) == "handshake-malformed"


def test_items_of_a_later_version_are_left_alone() -> None:
    unknown = struct.pack(">HH", 7, 3) + b"new"
    assert ClientHello.decode(HELLO.encode(5) + unknown) == HELLO
    assert ExitHello.decode(WELCOME.encode() + unknown + unknown) == WELCOME
    later = bytearray(WELCOME.encode())
    later[41] |= 0x80
    assert ExitHello.decode(later) == WELCOME


def test_hellos_that_are_cut_are_refused() -> None:
    for whole, decode, fixed in (
        (HELLO.encode(5), ClientHello.decode, 61),
        (WELCOME.encode(5), ExitHello.decode, 42),
    ):
        for cut in range(len(whole)):
            if cut == fixed:  # all fields are there, and no item
                decode(whole[:cut])
            else:
                assert refused(decode, whole[:cut]) == "handshake-malformed"


def test_hellos_with_bad_fields_are_refused() -> None:
    good = HELLO.encode()
    assert refused(ClientHello.decode, b"\x02" + good[1:]) == "handshake-bad-version"
    assert refused(ClientHello.decode, good[:1] + b"s" * 16 + good[17:]) == "handshake-malformed"
    assert refused(ClientHello.decode, good[:17] + b"t" * 16 + good[33:]) == "handshake-malformed"
    item = bytes((0, 1, 0, 4)) + b"time"
    assert refused(ExitHello.decode, WELCOME.encode() + item) == "handshake-malformed"
    assert refused(ExitHello.decode, b"\xff" + WELCOME.encode()[1:]) == "handshake-malformed"


@given(st.sampled_from([HELLO.encode()[:61], WELCOME.encode()[:42], b""]), st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_noise_in_hellos_raises_nothing_but_a_handshake_error(start: bytes, noise: bytes) -> None:
    for decode in (ClientHello.decode, ExitHello.decode):
        try:
            decode(start + noise)
        except HandshakeError as error:
            assert error.reason in ("handshake-malformed", "handshake-bad-version")


# --- replays --------------------------------------------------------------------------------------


def test_timestamps_of_a_client_must_rise(client: KeyPair, exit_keys: KeyPair) -> None:
    guard = ReplayGuard()
    guard.check(client.public, NOW, NOW)
    assert refused(guard.check, client.public, NOW, NOW + 10) == "handshake-replayed"
    assert refused(guard.check, client.public, NOW - 1, NOW + 10) == "handshake-replayed"
    guard.check(client.public, NOW + 1, NOW + 10)
    guard.check(exit_keys.public, NOW, NOW + 10)  # another client has a memory of its own


def test_clocks_may_differ_by_five_minutes_and_no_more(client: KeyPair) -> None:
    guard = ReplayGuard()
    for skew in (handshake.MAX_CLOCK_SKEW + 1, -handshake.MAX_CLOCK_SKEW - 1):
        assert refused(guard.check, client.public, NOW + skew, NOW) == "handshake-clock-skew"
    guard.check(client.public, NOW - 300_000_000, NOW)
    guard.check(client.public, NOW + 300_000_000, NOW)


def test_a_replay_is_refused_after_a_restart(client: KeyPair) -> None:
    before = ReplayGuard()
    before.check(client.public, NOW, NOW)
    after = ReplayGuard()
    after.check(client.public, NOW - 5, NOW)
    after.load(before.export())
    after.load({encode_key(client.public): NOW - 7})
    assert refused(after.check, client.public, NOW, NOW) == "handshake-replayed"
    assert after.export() == {base64.b64encode(client.public).decode(): NOW}


def test_a_memory_that_is_damaged_is_refused(client: KeyPair) -> None:
    guard = ReplayGuard()
    with pytest.raises(ConfigError):
        guard.load({"no key": NOW})
    with pytest.raises(ConfigError):
        guard.load({encode_key(client.public): "yesterday"})  # type: ignore[dict-item]


def test_the_guard_is_bounded_and_forgets_only_what_is_stale(client: KeyPair) -> None:
    guard = ReplayGuard()
    many = {encode_key(number.to_bytes(32)): NOW for number in range(handshake.MAX_REPLAY_CLIENTS)}
    guard.load(many)
    with pytest.raises(ConfigError):
        guard.load({encode_key(client.public): NOW})
    assert refused(guard.check, client.public, NOW, NOW) == "handshake-guard-full"
    guard.check((5).to_bytes(32), NOW + 1, NOW)  # known clients are served all the same
    later = NOW + handshake.MAX_CLOCK_SKEW + 1
    guard.check(client.public, later, later)
    assert guard.export() == {encode_key((5).to_bytes(32)): NOW + 1, encode_key(client.public): later}


def test_session_keys_differ_from_handshake_to_handshake(client: KeyPair, exit_keys: KeyPair) -> None:
    secrets: set[bytes] = set()
    for number in range(4):
        ours = ClientHandshake(client, exit_keys.public, HELLO, bytes([number]) * 32, packet_id=PACKET_ID)
        offer, _ = accept(ours.message(), exit_keys)
        _, session = offer.answer(WELCOME, EXIT_EPHEMERAL)
        assert isinstance(session, SessionKeys)
        secrets.add(session.secret)
    assert len(secrets) == 4
