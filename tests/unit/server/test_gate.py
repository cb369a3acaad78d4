"""What opens a door at the exit and what does not: first messages, one by one, with a clock of the test's."""

from __future__ import annotations

import gc
import secrets
from dataclasses import replace
from functools import partial

import pytest

from halftunnel_vpn.errors import HandshakeError
from halftunnel_vpn.protocol.handshake import ClientHandshake, HandshakeRefused, ReplayGuard
from halftunnel_vpn.protocol.handshake_payloads import (
    READS_REFUSALS,
    READS_STALE_TIME,
    REFUSALS,
    ClientHello,
    ExitStatus,
)
from halftunnel_vpn.protocol.join import encode_join, encode_token_join, verify_join_reply
from halftunnel_vpn.protocol.keys import Direction, KeyPair
from halftunnel_vpn.protocol.records import Opener, Sealer
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.protocol.wire import FLAG_HMAC, PacketType, as_uuid4, encode_header
from halftunnel_vpn.server import gate as gate_module
from halftunnel_vpn.server.gate import Gate, GateLimits, GateOwner
from halftunnel_vpn.server.sessions import Registry
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.session_options import SessionOwner

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM
EXIT, CLIENT, STRANGER = (KeyPair(bytes([number]) * 32) for number in (1, 2, 3))
NOW = 1_900_000_000.0
TIMEOUT, IDLE = 10.0, 60.0


class Attempt:
    """One handshake of a client, made but not said."""

    def __init__(self, *, static=CLIENT, exit_public=EXIT.public, time=NOW, **changes):
        fresh = {
            "session_id": as_uuid4(secrets.token_bytes(16)),
            "join_token": as_uuid4(secrets.token_bytes(16)),
            "timestamp": int(time * 1e6),
            "nonce": secrets.token_bytes(16),
        }
        self.hello = ClientHello(**fresh | changes)
        self.handshake = ClientHandshake(
            static, exit_public, self.hello, secrets.token_bytes(32), packet_id=secrets.token_bytes(16)
        )
        self.message = self.handshake.message()
        self.token = encode_token_join(self.hello.join_token, b"padding")


class House:
    """A gate, and all that it decides on."""

    def __init__(self, driver, counters, far_end):
        self.now = 1000.0
        self.step = 0.0
        driver.clock = self.clock
        self.driver = driver
        self.counters = counters
        self.refused = []
        self.saved = 0
        self.refusals: dict[str, ExitStatus] = {}
        self.wall = NOW
        self.clients = {CLIENT.public: "laptop", KeyPair(bytes([9]) * 32).public: "phone"}
        self.registry = Registry(
            driver, counters, idle_timeout=IDLE, refused=lambda *refusal: self.refused.append(refusal)
        )
        self.gate = Gate(
            self.registry,
            EXIT,
            GateLimits(TIMEOUT, sessions_per_client=2, max_sessions=3, max_streams=100, idle_timeout=IDLE),
            ReplayGuard(),
            GateOwner(
                client_of=self.clients.get,
                refusal_of=lambda client: self.refusals.get(client),
                make_session=self._session,
                guard_changed=self._save,
                has_ipv6=lambda: True,
                wall_clock=lambda: self.wall,
            ),
        )
        self._far_end = far_end
        self.ends = []

    def _session(self, hello, client, terms=None, trace=None):
        session_id = hello.session_id
        return Session(
            session_id,
            SessionOwner(
                self.driver.wheel,
                secrets.token_bytes,
                self.counters,
                wake=lambda: None,
                ended=lambda: self.registry.ended(session_id),
            ),
            SessionLimits(),
            self.now,
            is_client=False,
        )

    def _save(self):
        self.saved += 1

    def clock(self):
        """Time passes by ``step`` with each question: what is done in between is work."""
        self.now += self.step
        return self.now

    def come(self, direction, *messages, peer="192.0.2.1"):
        """Open a leg and say ``messages``."""
        end = self._far_end(peer).open(partial(self.gate.newcomer, direction))
        self.ends.append(end)
        for message in messages:
            end.say(message)
        return end

    def enter(self, attempt=None, **options):
        """A whole handshake: the attempt, the keys, and both legs."""
        attempt = attempt or Attempt(**options)
        up, down = self.come(UP, attempt.message), self.come(DOWN, attempt.token)
        answer, *_ = down.heard()
        _, keys = attempt.handshake.finish(answer)
        return attempt, keys, up, down

    def join(self, keys, direction, number, *, nonce=bytes(16)):
        return self.come(direction, encode_join(keys, direction, number, nonce, b"padding"))

    def let_pass(self, seconds):
        self.now += seconds
        self.driver.wheel.run(self.now)


@pytest.fixture
def house(driver, counters, far_end):
    return House(driver, counters, far_end)


@pytest.fixture
def refused(house):
    """Checks that a leg was closed without a word, that the reason was counted and told, and nothing else."""

    def check(end, reason, *, alone=True):
        assert end.is_closed
        assert end.heard() == []
        assert not end.joins
        assert house.counters.dropped[reason] == 1
        if alone:
            assert house.counters.dropped == {reason: 1}
        assert ("192.0.2.1", reason) in house.refused

    return check


# --- handshakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(UP, DOWN), (DOWN, UP)])
async def test_two_halves_make_a_session_in_whichever_order_they_come(house, order):
    attempt = Attempt()
    ends = {}
    for direction in order:
        assert not house.registry
        ends[direction] = house.come(direction, attempt.message if direction is UP else attempt.token)
    answer, first_record = ends[DOWN].heard()
    hello, keys = attempt.handshake.finish(answer)
    assert hello.has_ipv6 and hello.max_streams == 100 and hello.idle_timeout == IDLE
    assert hello.wall_time == int(NOW * 1e6)
    member = house.registry.sessions_of("laptop")[0]
    assert attempt.hello.session_id in house.registry
    assert [leg.direction for leg in member.session.legs] == [UP, DOWN]
    assert [end.joins for end in ends.values()] == [1, 1]
    for direction, record in ((DOWN, first_record), (UP, ends[UP].heard()[0])):
        leg_keys = keys.leg_keys(direction, 0, attempt.hello.nonce, hello.nonce)
        assert Opener(leg_keys.exit_to_client).open(record)[3] == PacketType.KEEPALIVE
    assert not house.counters.dropped and house.saved == 1


async def test_an_unknown_client_is_refused(house, refused):
    refused(house.come(UP, Attempt(static=STRANGER).message), "handshake-unknown-client")
    assert house.saved == 0


async def test_a_message_for_another_exit_is_refused(house, refused):
    refused(house.come(UP, Attempt(exit_public=STRANGER.public).message), "handshake-bad-tag")


async def test_a_message_on_the_wrong_road_is_refused(house, refused):
    refused(house.come(DOWN, Attempt().message), "handshake-on-wrong-path")


async def test_a_token_on_the_wrong_road_is_refused(house, refused):
    refused(house.come(UP, Attempt().token), "join-on-wrong-path")


async def test_a_message_said_again_is_a_replay_while_it_waits_and_after_it_was_used(house, refused):
    attempt = Attempt()
    house.come(UP, attempt.message)
    refused(house.come(UP, attempt.message), "handshake-replayed")
    house.come(DOWN, attempt.token)
    house.counters.dropped.clear()
    refused(house.come(UP, attempt.message), "handshake-replayed")
    assert len(house.registry) == 1


async def test_an_older_message_is_a_replay_too(house, refused):
    house.enter(time=NOW + 5)
    refused(house.come(UP, Attempt(time=NOW + 4).message), "handshake-replayed")
    house.enter(time=NOW + 6)


async def test_a_client_that_reads_stale_time_learns_the_last_timestamp(house):
    house.enter(time=NOW + 5)
    attempt = Attempt(time=NOW + 4, capabilities=READS_STALE_TIME)
    up, down = house.come(UP, attempt.message), house.come(DOWN, attempt.token)
    with pytest.raises(HandshakeRefused) as raised:
        attempt.handshake.finish(down.heard()[0])
    assert raised.value.exit_hello.status is ExitStatus.STALE_TIME
    assert raised.value.exit_hello.last_timestamp == int((NOW + 5) * 1e6)
    assert up.is_closed and down.is_closed and len(house.registry) == 1
    assert house.counters.dropped == {"handshake-stale-time": 1}
    assert house.refused == [("192.0.2.1", "handshake-stale-time")]


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("capabilities", [READS_REFUSALS, READS_STALE_TIME], ids=["new", "old"])
async def test_a_client_that_is_refused_for_itself_is_told_if_it_can_read_that(house, status, capabilities):
    house.refusals["laptop"] = status
    attempt = Attempt(capabilities=capabilities)
    up, down = house.come(UP, attempt.message), house.come(DOWN, attempt.token)
    with pytest.raises(HandshakeRefused) as raised:
        attempt.handshake.finish(down.heard()[0])
    told = status if capabilities == READS_REFUSALS else ExitStatus.OVERLOADED
    assert raised.value.exit_hello.status is told
    assert up.is_closed and down.is_closed and not len(house.registry)
    reason = f"client-{status.name.lower().replace('_', '-')}"
    assert house.counters.dropped == {reason: 1} and house.refused == [("192.0.2.1", reason)]
    house.refusals.clear()
    house.enter(time=NOW + 5)


async def test_the_last_message_said_again_is_a_replay_whatever_the_client_reads(house, refused):
    attempt = Attempt(capabilities=READS_STALE_TIME)
    house.come(UP, attempt.message)
    house.come(DOWN, attempt.token)
    for member in house.registry:
        member.close(ResetCode.SHUTDOWN)
    refused(house.come(UP, attempt.message), "handshake-replayed")


async def test_a_session_id_that_is_in_use_is_refused(house, refused):
    attempt, *_ = house.enter()
    again = Attempt(session_id=attempt.hello.session_id, time=NOW + 1)
    refused(house.come(UP, again.message), "handshake-replayed")


async def test_a_session_id_that_a_waiting_half_has_reserved_is_refused(house, refused):
    first = Attempt()
    house.come(UP, first.message)
    again = Attempt(session_id=first.hello.session_id, time=NOW + 1)
    refused(house.come(UP, again.message), "handshake-replayed")
    late = house.come(DOWN, again.token)
    first.handshake.finish(house.come(DOWN, first.token).heard()[0])
    assert not late.heard() and len(house.registry) == 1


async def test_a_reservation_ends_with_the_half_that_made_it(house):
    first = Attempt()
    house.come(UP, first.message).hang_up()
    house.enter(Attempt(session_id=first.hello.session_id, time=NOW + 1))
    assert len(house.registry) == 1


async def test_waiting_halves_that_meet_together_make_no_more_sessions_than_allowed(house):
    """The limit holds when the halves meet, not only when they come."""
    attempts = [Attempt(time=NOW + number) for number in range(4)]
    for attempt in attempts:
        house.come(UP, attempt.message)
    for attempt in attempts:
        house.come(DOWN, attempt.token)
    assert len(house.registry.sessions_of("laptop")) == len(house.registry) == 2


async def test_waiting_halves_of_a_client_have_a_bound_and_its_oldest_goes_first(house):
    other = Attempt(static=KeyPair(bytes([9]) * 32))
    house.come(UP, other.message)
    ends = [house.come(UP, Attempt(time=NOW + number).message) for number in range(5)]
    assert [end.is_closed for end in ends] == [True] * 3 + [False] * 2
    assert house.counters.dropped == {"too-many-handshakes": 3}
    other.handshake.finish(house.come(DOWN, other.token).heard()[0])


async def test_the_registry_refuses_an_id_that_it_knows(house):
    attempt, keys, *_ = house.enter()
    with pytest.raises(HandshakeError, match="handshake-replayed"):
        house.registry.add("laptop", CLIENT.public, house._session(attempt.hello, "laptop"), keys)
    assert len(house.registry) == 1


# --- clients that are removed ----------------------------------------------------------------------


@pytest.mark.parametrize("order", [(UP, DOWN), (DOWN, UP)])
async def test_a_half_held_back_until_its_client_was_removed_makes_no_session(house, order):
    attempt = Attempt()
    said = {UP: attempt.message, DOWN: attempt.token}
    ends = {order[0]: house.come(order[0], said[order[0]])}
    del house.clients[CLIENT.public]
    ends[order[1]] = house.come(order[1], said[order[1]])
    house.let_pass(TIMEOUT)
    assert not house.registry and not any(end.heard() or end.joins for end in ends.values())
    assert all(end.is_closed for end in ends.values())
    assert house.counters.dropped["handshake-unknown-client"]


async def test_the_waiting_halves_of_a_removed_client_are_dropped(house):
    own, other = house.come(UP, Attempt().message), Attempt(static=KeyPair(bytes([9]) * 32))
    house.come(UP, other.message)
    del house.clients[CLIENT.public]
    house.gate.drop_unlisted(house.clients.get)
    assert own.is_closed and house.counters.dropped == {"handshake-unknown-client": 1}
    other.handshake.finish(house.come(DOWN, other.token).heard()[0])


async def test_a_list_that_changes_while_the_halves_meet_refuses_both_once(house, monkeypatch):
    """Asking for the key may read the list again, which drops the half that is just meeting."""
    attempt = Attempt()
    up = house.come(UP, attempt.message)

    def client_of(public_key):
        house.clients.clear()
        house.gate.drop_unlisted(house.clients.get)

    monkeypatch.setattr(house.gate, "_client_of", client_of)
    down = house.come(DOWN, attempt.token)
    assert up.is_closed and down.is_closed and not house.registry
    assert house.counters.dropped == {"handshake-unknown-client": 2}


async def test_sessions_whose_key_is_not_listed_are_closed_whoever_noticed_the_change(house):
    _, _, up, down = house.enter()
    house.enter(static=KeyPair(bytes([9]) * 32))
    house.clients[CLIENT.public] = "renamed"
    house.registry.close_unlisted(house.clients.get)
    assert [member.client for member in house.registry] == ["phone"]
    assert up.is_closed and down.is_closed
    assert house.counters.counted["sessions-revoked"] == 1


async def test_a_removed_client_joins_no_further_leg_and_loses_its_session(house, refused):
    _, keys, *_ = house.enter()
    del house.clients[CLIENT.public]
    refused(house.join(keys, UP, 1), "join-unknown-client")
    assert not house.registry


async def test_a_token_that_waits_already_is_refused_and_the_first_still_serves(house, refused):
    attempt = Attempt()
    first = house.come(DOWN, attempt.token)
    refused(house.come(DOWN, attempt.token), "join-replayed")
    house.come(UP, attempt.message)
    attempt.handshake.finish(first.heard()[0])


async def test_a_token_serves_once(house, refused):
    attempt, *_ = house.enter()
    late = house.come(DOWN, attempt.token)
    house.let_pass(TIMEOUT)
    refused(late, "handshake-timeout")


@pytest.mark.parametrize("skew", [-3600, -301, 301, 3600])
async def test_a_clock_that_is_wrong_is_told_with_the_right_time(house, skew):
    attempt = Attempt(time=NOW + skew)
    up, down = house.come(UP, attempt.message), house.come(DOWN, attempt.token)
    with pytest.raises(HandshakeRefused) as raised:
        attempt.handshake.finish(down.heard()[0])
    assert raised.value.exit_hello.status is ExitStatus.CLOCK_SKEW
    assert raised.value.exit_hello.wall_time == int(NOW * 1e6)
    assert up.is_closed and down.is_closed and not house.registry
    assert house.counters.dropped == {"handshake-clock-skew": 1}
    assert house.refused == [("192.0.2.1", "handshake-clock-skew")]
    house.enter()


async def test_a_client_has_so_many_sessions(house):
    for time in (NOW, NOW + 1):
        house.enter(time=time)
    attempt = Attempt(time=NOW + 2)
    up, down = house.come(UP, attempt.message), house.come(DOWN, attempt.token)
    with pytest.raises(HandshakeRefused) as raised:
        attempt.handshake.finish(down.heard()[0])
    assert raised.value.exit_hello.status is ExitStatus.SESSION_LIMIT
    assert up.is_closed and down.is_closed
    assert house.counters.counted["handshakes-refused"] == 1


async def test_a_session_that_was_left_behind_makes_room(house):
    first, _, up, down = house.enter()
    house.enter(time=NOW + 1)
    up.hang_up()
    down.hang_up()
    third, *_ = house.enter(time=NOW + 2)
    assert first.hello.session_id not in house.registry and third.hello.session_id in house.registry


async def test_the_exit_has_so_many_sessions_in_all(house):
    for number in range(3):
        static = CLIENT if number < 2 else KeyPair(bytes([9]) * 32)
        house.enter(static=static, time=NOW + number)
    attempt = Attempt(static=KeyPair(bytes([9]) * 32), time=NOW + 5)
    house.come(UP, attempt.message)
    down = house.come(DOWN, attempt.token)
    with pytest.raises(HandshakeRefused) as raised:
        attempt.handshake.finish(down.heard()[0])
    assert raised.value.exit_hello.status is ExitStatus.OVERLOADED


# --- nonsense ------------------------------------------------------------------------------------


def header(type_, flags=0, length=0, magic=0x4854, version=1):
    plain = bytearray(encode_header(type_ | flags, bytes(16), 0, 0, 0, length))
    plain[0:2] = magic.to_bytes(2, "big")
    plain[2] = version
    return bytes(plain)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "wire-truncated"),
        (b"GET / HTTP/1.1\r\n\r\n", "wire-truncated"),
        (header(PacketType.HANDSHAKE, magic=0x4855), "wire-bad-magic"),
        (header(PacketType.HANDSHAKE, version=2), "wire-bad-version"),
        (header(PacketType.HANDSHAKE, flags=0x40), "wire-bad-flags"),
        (header(0), "wire-bad-flags"),
        (header(PacketType.DATA), "wire-unexpected-type"),
        (header(PacketType.HANDSHAKE, length=10), "wire-truncated"),
        (header(PacketType.HANDSHAKE) + b"x", "wire-trailing-bytes"),
        (header(PacketType.HANDSHAKE) , "handshake-too-short"),
        (header(PacketType.RECONNECT, flags=FLAG_HMAC) + bytes(32), "join-unknown"),
        (header(PacketType.RECONNECT, length=4063) + bytes(4063), "wire-too-long"),
        (bytes(65536), "wire-too-long"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("direction", [UP, DOWN])
async def test_a_first_message_that_is_none(house, refused, direction, message, reason):
    if direction is DOWN and reason.startswith("handshake-"):
        reason = "handshake-on-wrong-path"
    refused(house.come(direction, message), reason)


async def test_every_bit_of_a_message_counts(house):
    message = Attempt().message
    for position in range(0, len(message) * 8, 13):
        flipped = bytearray(message)
        flipped[position // 8] ^= 1 << position % 8
        end = house.come(UP, bytes(flipped))
        assert end.is_closed and end.heard() == []
    assert sum(house.counters.dropped.values()) == len(range(0, len(message) * 8, 13))
    assert not house.registry and house.saved == 0


async def test_every_cut_of_a_message_is_refused(house):
    message = Attempt().message
    for length in range(0, len(message), 7):
        assert house.come(UP, message[:length]).is_closed
    assert set(house.counters.dropped) == {"wire-truncated"}


async def test_a_text_message_is_refused(house, refused):
    end = house.come(UP)
    end.say_text()
    refused(end, "text-frame")


async def test_a_second_message_before_the_session_is_refused(house, refused):
    attempt = Attempt()
    refused(house.come(UP, attempt.message, attempt.message), "message-before-session")
    late = house.come(DOWN, attempt.token)
    assert late.heard() == [] and not house.registry, "the first half is gone with its leg"


async def test_after_a_refusal_nothing_more_is_heard(house, refused):
    end = house.come(UP, b"nonsense", Attempt().message, b"more nonsense")
    refused(end, "wire-truncated")
    assert len(house.refused) == 1 and house.saved == 0


# --- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["nothing", "message", "token"])
async def test_a_leg_has_so_long_to_say_who_it_is(house, refused, said):
    attempt = Attempt()
    end = {
        "nothing": lambda: house.come(UP),
        "message": lambda: house.come(UP, attempt.message),
        "token": lambda: house.come(DOWN, attempt.token),
    }[said]()
    house.let_pass(TIMEOUT - 0.1)
    assert not end.is_closed
    house.let_pass(0.2)
    refused(end, "handshake-timeout")
    other = house.come(DOWN, attempt.token) if said != "token" else house.come(UP, attempt.message)
    assert other.heard() == [] and not house.registry


async def test_a_leg_that_joined_has_all_the_time_in_the_world(house):
    _, _, up, down = house.enter()
    for _ in range(10):
        house.let_pass(TIMEOUT / 10)
    assert not up.is_closed and not down.is_closed


async def test_a_half_whose_leg_is_lost_waits_for_nobody(house):
    attempt = Attempt()
    house.come(UP, attempt.message).hang_up()
    down = house.come(DOWN, attempt.token)
    assert down.heard() == [] and not house.registry
    down.hang_up()
    house.let_pass(TIMEOUT * 2)
    assert not house.counters.dropped, "who hangs up was not refused"


@pytest.mark.parametrize("closing", [UP, DOWN])
@pytest.mark.parametrize("last", [UP, DOWN])
async def test_a_half_whose_leg_is_being_closed_opens_no_session(house, closing, last):
    attempt = Attempt()
    said = {UP: attempt.message, DOWN: attempt.token}
    ends = {direction: house.come(direction) for direction in said}
    ends[closing].leg.close(1001)  # as the exit does with every leg when it stops
    for direction in sorted(said, key=lambda one: one is last):
        ends[direction].say(said[direction])
    assert not house.registry and not house.counters.dropped
    assert not any(end.heard() or end.joins for end in ends.values())


async def test_a_leg_that_is_being_closed_joins_no_session(house):
    _, keys, _, _ = house.enter()
    late = house.come(UP)
    late.leg.close(1001)
    late.say(encode_join(keys, UP, 1, bytes(16), b"padding"))
    assert not late.heard() and not late.joins and not house.counters.dropped
    assert len(house.registry.sessions_of("laptop")[0].session.legs) == 2
    house.join(keys, UP, 1)
    assert len(house.registry.sessions_of("laptop")[0].session.legs) == 3


async def test_newcomers_have_a_bound_and_the_oldest_goes_first(house, monkeypatch):
    monkeypatch.setattr(gate_module, "MAX_WAITING", 5)
    ends = [house.come(UP) for _ in range(7)]
    assert [end.is_closed for end in ends] == [True, True] + [False] * 5
    assert house.counters.dropped == {"too-many-newcomers": 2}


# --- further legs --------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [UP, DOWN])
async def test_a_leg_joins_under_its_label_and_speaks_under_its_own_keys(house, direction):
    _, keys, *_ = house.enter()
    end = house.join(keys, direction, 1, nonce=b"n" * 16)
    reply, record = end.heard()
    exit_nonce = verify_join_reply(reply, keys, direction, 1, b"n" * 16)
    leg_keys = keys.leg_keys(direction, 1, b"n" * 16, exit_nonce)
    assert Opener(leg_keys.exit_to_client).open(record)[3] == PacketType.KEEPALIVE
    assert house.counters.counted[f"legs-joined-{direction.name.lower()}"] == 2


async def test_a_leg_number_serves_once(house, refused):
    _, keys, *_ = house.enter()
    house.join(keys, UP, 1)
    refused(house.join(keys, UP, 1), "join-unknown")


async def test_a_join_on_the_other_road_is_refused_and_the_number_is_not_used_up(house, refused):
    _, keys, *_ = house.enter()
    refused(house.come(DOWN, encode_join(keys, UP, 1, bytes(16), b"")), "join-on-wrong-path")
    assert not house.join(keys, UP, 1).is_closed


async def test_a_join_with_a_wrong_mac_is_refused_and_the_number_is_not_used_up(house, refused):
    _, keys, *_ = house.enter()
    message = bytearray(encode_join(keys, UP, 1, bytes(16), b"padding"))
    message[-1] ^= 1
    refused(house.come(UP, bytes(message)), "join-bad-mac")
    assert not house.join(keys, UP, 1).is_closed


async def test_numbers_beyond_the_window_are_refused(house, refused):
    _, keys, *_ = house.enter()
    refused(house.join(keys, UP, 65), "join-unknown")
    assert not house.join(keys, UP, 64).is_closed
    assert not house.join(keys, UP, 128).is_closed
    house.counters.dropped.clear()
    refused(house.join(keys, UP, 64), "join-unknown")


async def test_the_table_of_labels_stays_small_and_empties_with_the_sessions(house):
    _, keys, *_ = house.enter()
    for number in range(1, 200):
        house.join(keys, UP, number).hang_up()
    assert len(house.registry._labels) <= 4 * 64
    house.registry.close_all(ResetCode.SHUTDOWN)
    assert not house.registry._labels and not house.registry


# --- one client takes not all ----------------------------------------------------------------------


async def test_legs_of_a_client_have_a_bound_over_all_its_sessions(house, refused):
    house.gate._limits = replace(house.gate._limits, legs_per_client=6)
    (_, first, *_), (_, second, *_) = house.enter(), house.enter(time=NOW + 1)
    joined = [house.join(first, UP, 1), house.join(first, UP, 2)]
    assert house.registry.legs_of("laptop") == 6
    refused(house.join(first, UP, 3), "join-client-legs")
    assert not house.join(second, DOWN, 1).is_closed, "a session always gets its first legs"
    _, others, *_ = house.enter(static=KeyPair(bytes([9]) * 32))
    assert not house.join(others, UP, 1).is_closed and not house.join(others, UP, 2).is_closed
    for end in joined:
        end.hang_up()
    assert not house.join(first, UP, 4).is_closed


async def test_further_legs_leave_room_for_first_legs(house, refused):
    house.gate._limits = replace(house.gate._limits, shared_legs=4)
    _, keys, *_ = house.enter()
    for number in (1, 2, 3):
        assert not house.join(keys, UP, number).is_closed
    refused(house.join(keys, UP, 4), "join-reserved")
    assert not house.join(keys, DOWN, 1).is_closed, "the other direction has a count of its own"
    _, others, *_ = house.enter(static=KeyPair(bytes([9]) * 32))
    assert not house.join(others, UP, 1).is_closed, "the leg that replaces the first"
    assert house.registry.legs == {UP: 6, DOWN: 3}


async def test_counts_of_legs_end_with_the_legs(house):
    _, keys, *_ = house.enter()
    house.join(keys, UP, 1)
    house.registry.close_all(ResetCode.SHUTDOWN)
    for end in house.ends:
        end.hang_up()
    assert house.registry.legs == {UP: 0, DOWN: 0} and not house.registry._legs_of


async def test_lost_legs_are_charged_to_their_client_whose_new_legs_wait(house):
    _, keys, *_ = house.enter()
    others = house.registry.fairness.share_of("phone")
    legs = [house.join(keys, UP, number) for number in range(1, 5)]
    house.step = 0.06
    for leg in legs:
        others.served(100, 1e-5, house.now)
        leg.hang_up()
    house.step = 0.0
    others.served(100, 1e-5, house.now)
    waiting = house.join(keys, UP, 5)
    assert waiting.heard() == [] and not waiting.is_closed and house.counters.counted["newcomers-held"] == 1
    house.let_pass(1.1)  # nobody else is served any more
    assert verify_join_reply(waiting.heard()[0], keys, UP, 5, bytes(16))


async def test_a_debt_outlives_the_session_that_made_it(house):
    house.enter()
    others = house.registry.fairness.share_of("phone")
    others.served(100, 1e-5, house.now)
    house.registry.fairness.share_of("laptop").served(100, 0.5, house.now)
    house.registry.close_all(ResetCode.SHUTDOWN)
    for end in house.ends:
        end.hang_up()
    house.ends.clear()
    gc.collect()
    attempt = Attempt(time=NOW + 1)
    others.served(100, 1e-5, house.now)
    house.come(UP, attempt.message)
    down = house.come(DOWN, attempt.token)
    assert down.heard() == [] and not house.registry
    house.let_pass(1.1)
    attempt.handshake.finish(down.heard()[0])


# --- the life of a session -----------------------------------------------------------------------


async def test_a_session_without_legs_leaves_after_the_idle_timeout(house):
    _, keys, up, down = house.enter()
    up.hang_up()
    house.let_pass(IDLE * 2)
    assert len(house.registry) == 1, "one leg is left"
    down.hang_up()
    house.let_pass(IDLE - 1)
    assert len(house.registry) == 1
    house.let_pass(2)
    assert not house.registry and house.counters.counted["sessions-expired"] == 1
    assert house.join(keys, UP, 1).is_closed
    assert house.counters.dropped["join-unknown"] == 1


async def test_a_leg_that_joins_in_time_saves_the_session(house):
    _, keys, up, down = house.enter()
    up.hang_up()
    down.hang_up()
    house.let_pass(IDLE - 1)
    end = house.join(keys, DOWN, 1)
    house.let_pass(5)
    assert len(house.registry) == 1
    end.hang_up()
    house.let_pass(IDLE - 1)
    assert len(house.registry) == 1, "the time begins anew"
    house.let_pass(2)
    assert not house.registry


def sealed_goodbye(keys, attempt, hello_nonce):
    train = encode_header(PacketType.RESET, attempt.hello.session_id, 0, 0, 0, 1) + bytes(
        [ResetCode.SHUTDOWN]
    )
    return Sealer(keys.leg_keys(UP, 0, attempt.hello.nonce, hello_nonce).client_to_exit).seal([train])


async def test_a_goodbye_ends_the_session_at_once(house):
    attempt = Attempt()
    up, down = house.come(UP, attempt.message), house.come(DOWN, attempt.token)
    hello, keys = attempt.handshake.finish(down.heard()[0])
    up.say(sealed_goodbye(keys, attempt, hello.nonce))
    assert not house.registry and up.is_closed and down.is_closed
    assert house.counters.counted["sessions-ended-by-peer"] == 1
    assert house.join(keys, UP, 1).is_closed


@pytest.mark.parametrize(
    ("record", "reason"),
    [(b"x" * 100, "record-bad-tag"), (b"short", "record-too-short"), (b"", "record-too-short")],
)
async def test_a_record_that_does_not_open_ends_the_leg_and_is_told(house, record, reason):
    _attempt, keys, up, down = house.enter()
    up.say(record)
    assert up.is_closed and not down.is_closed
    assert house.counters.dropped == {reason: 1}
    assert house.refused == [("192.0.2.1", reason)]
    up.say(record)
    assert house.counters.dropped == {reason: 1}, "the next one is not tried"
    assert not house.join(keys, UP, 1).is_closed, "the session goes on"


async def test_a_text_message_ends_a_leg_that_has_joined(house):
    _, _, up, down = house.enter()
    up.say_text()
    assert up.is_closed and not down.is_closed
    assert house.counters.dropped == {"text-frame": 1}
    assert house.refused == [("192.0.2.1", "text-frame")]


async def test_an_end_that_nobody_knows_of_is_nothing(house):
    house.registry.ended(bytes(16))
    assert not house.counters.counted


async def test_a_session_has_only_so_many_legs_of_a_direction(house, monkeypatch):
    monkeypatch.setattr(gate_module, "MAX_LEGS", 3)
    _, keys, _, _ = house.enter()
    assert not house.join(keys, UP, 1).is_closed
    last = house.join(keys, UP, 2)
    assert house.join(keys, UP, 3).is_closed
    assert house.counters.dropped == {"join-too-many-legs": 1}
    assert not house.join(keys, DOWN, 1).is_closed
    last.hang_up()
    assert not house.join(keys, UP, 3).is_closed, "the number was not used up"
