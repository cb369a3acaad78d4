"""The first message of a new leg: a handshake, the token of one, or a join. Anything else is refused.

Nothing permanent is kept for a peer that has not proven its key. A waiting leg has one entry in a bounded
table until its deadline.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from halftunnel_vpn.errors import HandshakeError
from halftunnel_vpn.protocol.handshake import Offer, ReplayGuard, receive_hello
from halftunnel_vpn.protocol.handshake_payloads import (
    INVITATION_REFUSALS,
    READS_REFUSALS,
    READS_STALE_TIME,
    TAKES_HOP_LIMITS,
    ClientHello,
    ExitHello,
    ExitStatus,
)
from halftunnel_vpn.protocol.join import decode_token_join, encode_join_reply, verify_join
from halftunnel_vpn.protocol.keys import NONCE_LENGTH, Direction, KeyPair
from halftunnel_vpn.protocol.shaping_terms import TAKES_PADDING, ShapingMode, ShapingTerms
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.protocol.trace_ports import NO_TRACING, Tracing
from halftunnel_vpn.protocol.wire import FLAG_HMAC, Buffer, PacketType, peek
from halftunnel_vpn.server.invitations_port import NO_INVITATIONS, InvitationsPort
from halftunnel_vpn.server.newcomer import Newcomer
from halftunnel_vpn.server.pending_handshakes import PendingHandshakes, UpstreamHalf
from halftunnel_vpn.server.sessions import Registry, SessionMaker
from halftunnel_vpn.session.receive_side import MIN_WINDOW
from halftunnel_vpn.transport.leg import Leg

MAX_WAITING = 1024
"""Legs that have not identified themselves, and half handshakes that wait for the other half."""

NORMAL_CLOSURE = 1000
"""The code in our Close frame. It reveals nothing (RFC 6455 section 7.4.1)."""

MAX_LEGS = 512
"""Legs of one direction of a session: twice a profile's most, because new ones join before old ones end."""

FIRST_LEGS = 2
"""Legs of one direction of a session that may always join, whatever the limits.

They are one leg and its replacement."""

MAX_HOLD = 1.0
"""The longest interval in seconds between two checks of a newcomer whose client is in processor debt."""

MAX_PADDING = 256
"""The most bytes of padding in a reply."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """How long a new leg may take to join, and how many sessions there may be."""

    handshake_timeout: float
    sessions_per_client: int
    max_sessions: int
    max_streams: int
    idle_timeout: float
    # The most legs of all sessions of one client.
    legs_per_client: int = 1024
    # The most shaping that clients get: the mode, and bytes per second downstream.
    shaping: ShapingMode = ShapingMode.STRONG
    shaping_rate: int = 0
    # Legs of one direction of all clients beyond which only first legs may join.
    shared_legs: int = 3584


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOwner:
    """What the gate asks of the exit around it."""

    client_of: Callable[[bytes], str | None]
    """Returns the name of the client with a public key, None for a stranger."""
    refusal_of: Callable[[str], ExitStatus | None] = lambda client: None
    """Returns why a client may have no session now, None if it may."""
    make_session: SessionMaker
    guard_changed: Callable[[], None]
    """Called when the replay guard has accepted a timestamp, which must be saved."""
    has_ipv6: Callable[[], bool]
    invitations: InvitationsPort = NO_INVITATIONS
    tracing: Tracing = NO_TRACING
    random: Callable[[int], bytes] = secrets.token_bytes
    wall_clock: Callable[[], float] = time.time


class Gate:
    """Admits legs to the sessions of ``registry``; implements NewcomerOwner."""

    def __init__(
        self, registry: Registry, keys: KeyPair, limits: GateLimits, guard: ReplayGuard, owner: GateOwner
    ) -> None:
        self._registry = registry
        # The exit's key pair.
        self._keys = keys
        self._limits = limits
        # The last timestamp of each client.
        self._guard = guard
        self._owner = owner
        self._random = owner.random
        self._client_of = owner.client_of
        self._invitations = owner.invitations
        self._driver = registry.driver
        self.counters = registry.counters
        # Called with the peer's address and the reason of every refusal, for the log.
        self._refused = registry.refused
        # Legs that have not joined a session, the oldest first.
        self._newcomers: dict[Newcomer, None] = {}
        # Halves of handshakes that wait for the other half.
        self._pending = PendingHandshakes(per_client=limits.sessions_per_client)

    def set_terms(self, keys: KeyPair, limits: GateLimits) -> None:
        """Use another key pair and other limits for handshakes that begin from now on."""
        self._keys = keys
        self._limits = limits
        self._pending.per_client = limits.sessions_per_client

    def newcomer(self, direction: Direction, leg: Leg, joined: Callable[[], None]) -> Newcomer:
        """Return the listener of a leg that has just been opened for ``direction``.

        ``joined`` is called when the leg has become part of a session.
        """
        now = self._driver.clock()
        newcomer = Newcomer(self, direction, leg, joined, self._driver.wheel.timer, now)
        self._newcomers[newcomer] = None
        newcomer.deadline.arm(now + self._limits.handshake_timeout)
        if len(self._newcomers) > MAX_WAITING:
            self.refuse(next(iter(self._newcomers)), "too-many-newcomers")
        return newcomer

    def forget(self, newcomer: Newcomer) -> None:
        """Discard ``newcomer``: its leg has joined or is closed."""
        self._newcomers.pop(newcomer, None)
        newcomer.deadline.cancel()
        newcomer.held.cancel()
        self._pending.discard(newcomer)

    def drop_unlisted(self, client_of: Callable[[bytes], str | None]) -> None:
        """Refuse every waiting handshake whose key ``client_of`` does not know: its client was removed."""
        for newcomer in self._pending.unlisted(client_of):
            self.refuse(newcomer, "handshake-unknown-client")

    def refuse(self, newcomer: Newcomer, reason: str) -> None:
        """Close the leg of ``newcomer`` without giving the peer a reason. Count and log ``reason``."""
        self.counters.drop(reason)
        self._refused(newcomer.leg.peer, reason)
        self.forget(newcomer)
        newcomer.leg.refuse(NORMAL_CLOSURE)

    def first_message(self, newcomer: Newcomer, message: Buffer) -> None:
        """Handle the first message of a leg. Raises PeerError when it is not acceptable."""
        packet = peek(message)
        if packet.type is PacketType.HANDSHAKE:
            if newcomer.direction is not Direction.UPSTREAM:
                raise HandshakeError("handshake-on-wrong-path")
            self._hello_received(newcomer, message)
        elif memoryview(message)[3] & FLAG_HMAC:
            self._join_received(newcomer, packet.session_id, message)
        elif newcomer.direction is Direction.DOWNSTREAM:
            self._token_received(newcomer, decode_token_join(message))
        else:
            raise HandshakeError("join-on-wrong-path")

    # --- a new session from two half handshakes --------------------------------------------------

    def _hello_received(self, newcomer: Newcomer, message: Buffer) -> None:
        offer = receive_hello(message, self._keys)
        is_listed = self._client_of(offer.client_public) is not None
        if not is_listed and not self._invitations.exist():
            raise HandshakeError("handshake-unknown-client")
        hello = offer.open()
        invited = self._invitations.admit(offer.client_public, hello.invitation) if not is_listed else None
        if not is_listed and invited is None:
            raise HandshakeError("handshake-unknown-client")
        status = invited or ExitStatus.OK
        if status is ExitStatus.OK:
            status = self._check_time(newcomer, offer, hello)
        if hello.session_id in self._registry:
            raise HandshakeError("handshake-replayed")
        oldest = self._pending.add_upstream(UpstreamHalf(newcomer, offer, hello, status))
        if oldest is not None:
            self.refuse(oldest, "too-many-handshakes")
        self._meet(hello.join_token)

    def _check_time(self, newcomer: Newcomer, offer: Offer, hello: ClientHello) -> ExitStatus:
        """Return the status for the timestamp of a client. Raises HandshakeError for a replay."""
        try:
            self._guard.check(offer.client_public, hello.timestamp, int(self._owner.wall_clock() * 1e6))
        except HandshakeError as error:
            refusal = self._answer_to(error.reason, offer, hello)
            if refusal is None:
                raise
            reason = f"handshake-{refusal.name.lower().replace('_', '-')}"
            self.counters.drop(reason)
            self._refused(newcomer.leg.peer, reason)
            return refusal
        self._owner.guard_changed()
        return ExitStatus.OK

    def _answer_to(self, reason: str, offer: Offer, hello: ClientHello) -> ExitStatus | None:
        """Return the status for a proven client whose timestamp is refused; None for no answer.

        A message equal to the last accepted one is a replay. Its original sender does not wait for an answer.
        """
        if reason == "handshake-clock-skew":
            return ExitStatus.CLOCK_SKEW
        is_replay = hello.timestamp == self._guard.last(offer.client_public)
        if reason == "handshake-replayed" and hello.capabilities & READS_STALE_TIME and not is_replay:
            return ExitStatus.STALE_TIME
        return None

    def _token_received(self, newcomer: Newcomer, token: bytes) -> None:
        self._pending.add_downstream(token, newcomer)
        self._meet(token)

    def _meet(self, token: bytes) -> None:
        """Create the session if both halves have arrived. Its key, id and limits are checked again here."""
        pair = self._pending.pair(token)
        if pair is None:
            return
        half, downstream = pair
        upstream, offer, hello, status = half.newcomer, half.offer, half.hello, half.status
        if not (upstream.is_open and downstream.is_open):
            return  # each half is discarded with its leg
        client = self._client_of(offer.client_public)
        if client is not None and self._is_held(downstream, client, lambda: self._meet(token)):
            return
        is_known = client is not None or status in INVITATION_REFUSALS
        if not is_known or hello.session_id in self._registry:
            reason = "handshake-replayed" if is_known else "handshake-unknown-client"
            for newcomer in (upstream, downstream):
                if newcomer.is_open:  # a change of the client list may have closed it just now
                    self.refuse(newcomer, reason)
            return
        if status is ExitStatus.OK and client is not None:
            status = self._own_refusal(client, hello, downstream.leg.peer) or self._room_for(client)
        exit_nonce = self._random(NONCE_LENGTH)
        shaping = self._shaping_for(hello)
        answer = ExitHello(
            status,
            int(self._owner.wall_clock() * 1e6),
            exit_nonce,
            max_streams=self._limits.max_streams,
            stream_window=MIN_WINDOW,
            idle_timeout=int(self._limits.idle_timeout),
            has_ipv6=self._owner.has_ipv6(),
            capabilities=TAKES_HOP_LIMITS | TAKES_PADDING,
            last_timestamp=self._guard.last(offer.client_public) if status is ExitStatus.STALE_TIME else 0,
            shaping=shaping,
        )
        reply, keys = offer.answer(answer, self._random(32), padding=self._padding())
        self.forget(upstream)
        self.forget(downstream)
        if status is not ExitStatus.OK:
            self.counters.count("handshakes-refused")
            downstream.leg.send(reply)
            upstream.leg.close()
            downstream.leg.close()
            return
        assert client is not None
        trace = self._owner.tracing.session(keys, is_client=False)
        session = self._owner.make_session(hello, client, shaping, trace)
        member = self._registry.add(client, offer.client_public, session, keys)
        self.counters.count("handshakes-accepted")
        downstream.leg.send(reply)
        for newcomer in (upstream, downstream):
            newcomer.joined()
            member.join(newcomer, 0, hello.nonce, exit_nonce)

    def _shaping_for(self, hello: ClientHello) -> ShapingTerms | None:
        """Return what the client gets of the shaping that it asks for; None if it asks for none."""
        if hello.shaping is None or not hello.capabilities & TAKES_PADDING:
            return None
        return hello.shaping.granted(self._limits.shaping, self._limits.shaping_rate)

    def _own_refusal(self, client: str, hello: ClientHello, peer: str) -> ExitStatus | None:
        """Return the status for a proven client that may not connect now; None for one that may."""
        refusal = self._owner.refusal_of(client)
        if refusal is None:
            return None
        reason = f"client-{refusal.name.lower().replace('_', '-')}"
        self.counters.drop(reason)
        self._refused(peer, reason)
        return refusal if hello.capabilities & READS_REFUSALS else ExitStatus.OVERLOADED

    def _room_for(self, client: str) -> ExitStatus:
        own = self._registry.sessions_of(client)
        if len(own) >= self._limits.sessions_per_client:
            abandoned = [session for session in own if not session.session.legs]
            if not abandoned:
                return ExitStatus.SESSION_LIMIT
            abandoned[0].close(ResetCode.LIMIT)  # a client that has restarted no longer uses it
        return ExitStatus.OK if len(self._registry) < self._limits.max_sessions else ExitStatus.OVERLOADED

    # --- a further leg ---------------------------------------------------------------------------

    def _join_received(self, newcomer: Newcomer, label: bytes, message: Buffer) -> None:
        found = self._registry.find(label)
        if found is None:
            raise HandshakeError("join-unknown")
        member, direction, number = found
        if direction is not newcomer.direction:
            raise HandshakeError("join-on-wrong-path")
        if len(member.session.legs_of(direction)) >= MAX_LEGS:
            raise HandshakeError("join-too-many-legs")
        if len(member.session.legs_of(direction)) >= FIRST_LEGS:
            if self._registry.legs_of(member.client) >= self._limits.legs_per_client:
                raise HandshakeError("join-client-legs")
            if self._registry.legs[direction] >= self._limits.shared_legs:
                raise HandshakeError("join-reserved")
        client_nonce = verify_join(message, member.keys, direction, number)
        if self._client_of(member.public_key) != member.client:
            member.close(ResetCode.DENIED)
            raise HandshakeError("join-unknown-client")
        if self._owner.refusal_of(member.client) is not None:
            member.close(ResetCode.DENIED)
            raise HandshakeError("join-refused-client")
        kept = bytes(message)
        if self._is_held(newcomer, member.client, lambda: self._join_received(newcomer, label, kept)):
            return
        self._registry.use(member, direction, number)
        exit_nonce = self._random(NONCE_LENGTH)
        padding = self._random(self._padding())
        reply = encode_join_reply(member.keys, direction, number, client_nonce, exit_nonce, padding)
        self.forget(newcomer)
        newcomer.joined()
        newcomer.leg.send(reply)
        member.join(newcomer, number, client_nonce, exit_nonce)

    def _is_held(self, newcomer: Newcomer, client: str, again: Callable[[], None]) -> bool:
        """Return whether ``client`` is in processor debt. If so, ``again`` is called when it has paid."""
        now = self._driver.clock()
        seconds = self._registry.fairness.share_of(client).served(0, 0.0, now)
        if seconds <= 0:
            return False
        self.counters.count("newcomers-held")
        newcomer.hold(again, now + min(seconds, MAX_HOLD))
        return True

    def _padding(self) -> int:
        return self._random(1)[0] % MAX_PADDING
