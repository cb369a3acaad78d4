"""The sessions of an exit: their clients, the labels with which their legs may join, and their end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError
from halftunnel_vpn.protocol.handshake_payloads import ClientHello
from halftunnel_vpn.protocol.join import LabelWindow
from halftunnel_vpn.protocol.keys import Direction, SessionKeys, log_id
from halftunnel_vpn.protocol.shaping_terms import ShapingTerms
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.protocol.trace_ports import SessionTrace, trace_fields
from halftunnel_vpn.server.fairness import Fairness
from halftunnel_vpn.server.newcomer import Newcomer
from halftunnel_vpn.session.legs import LegIdentity, SessionLeg
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import contain
from halftunnel_vpn.transport.sealed_leg import LegOwner, SealedLeg

log = logging.getLogger(__name__)


class ExitSession:
    """One client's session at the exit, with the labels with which further legs join it."""

    __slots__ = (
        "_idle",
        "_registry",
        "_share",
        "client",
        "keys",
        "public_key",
        "session",
        "since",
        "windows",
    )

    def __init__(
        self, registry: Registry, client: str, public_key: bytes, session: Session, keys: SessionKeys
    ) -> None:
        self.client = client
        self.public_key = public_key
        self.session = session
        self.since = registry.driver.clock()
        self.keys = keys
        self.windows = {direction: LabelWindow(keys, direction) for direction in Direction}
        self._registry = registry
        self._share = registry.fairness.share_of(client)
        self._idle = registry.driver.wheel.timer(self._expired)

    def join(self, newcomer: Newcomer, number: int, client_nonce: bytes, exit_nonce: bytes) -> None:
        """Make the leg of ``newcomer`` part of the session, so that it carries trains."""
        registry = self._registry
        leg, direction = newcomer.leg, newcomer.direction
        trace = self.session.trace
        if trace is not None and number:
            trace.joined(direction, number, newcomer.since, newcomer.since)
        elif trace is not None and direction is Direction.UPSTREAM:
            trace.handshake(newcomer.since, newcomer.since)
        keys = self.keys.leg_keys(direction, number, client_nonce, exit_nonce)
        owner = LegOwner(
            registry.driver.clock,
            registry.counters,
            lost=self._leg_lost,
            refused=lambda reason: registry.refused(leg.peer, reason),
            served=self._share.served,
        )
        sealed = SealedLeg(leg, self.session, keys, LegIdentity(direction, number, name=leg.peer), owner)
        registry.leg_joined(self.client, direction)
        leg.listener = sealed
        registry.counters.count(f"legs-joined-{direction.name.lower()}")
        self._idle.cancel()
        self.session.leg_joined(sealed.state, sealed.state.opened_at)

    def start_idle_timer(self) -> None:
        """End the session after the idle timeout unless a leg joins."""
        self._idle.arm(self._registry.driver.clock() + self._registry.idle_timeout)

    def close(self, code: ResetCode) -> None:
        """End the session and notify the client."""
        self._idle.cancel()
        self._registry.forget(self)
        began = self._registry.driver.clock()
        contain(lambda: self.session.close(code, began), "the end of a session")
        now = self._registry.driver.clock()
        self._share.served(0, now - began, now)

    def _leg_lost(self, leg: SessionLeg, reason: str) -> None:
        self._registry.counters.count(f"legs-lost-{leg.direction.name.lower()}")
        leg.report(self._registry.counters)
        self._registry.leg_left(self.client, leg.direction)
        if not self.session.legs and not self.session.is_closed:
            self.start_idle_timer()

    def _expired(self, now: float) -> None:
        self._registry.counters.count("sessions-expired")
        self.close(ResetCode.TIMED_OUT)


class Registry:
    """Every session of an exit, found by the label of a joining leg.

    ``refused`` is called with the peer's address and the reason when a leg violates the protocol.
    """

    def __init__(
        self,
        driver: Driver,
        counters: Counters,
        *,
        idle_timeout: float,
        refused: Callable[[str, str], None] = lambda peer, reason: None,
    ) -> None:
        self.driver = driver
        self.counters = counters
        self.idle_timeout = idle_timeout
        self.refused = refused
        self.fairness = Fairness()
        self._sessions: dict[bytes, ExitSession] = {}
        # The same by client, so that a join costs no more when there are many sessions.
        self._of_client: dict[str, dict[bytes, ExitSession]] = {}
        self._labels: dict[bytes, tuple[ExitSession, Direction, int]] = {}
        # Joined legs of all clients whose sockets are open.
        self.legs = dict.fromkeys(Direction, 0)
        # The same per client, in both directions.
        self._legs_of: dict[str, int] = {}
        counters.add_refresher(self._report_legs)

    def _report_legs(self) -> None:
        for member in self._sessions.values():
            for leg in member.session.legs:
                leg.report(self.counters)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[ExitSession]:
        return iter(list(self._sessions.values()))

    def __contains__(self, session_id: bytes) -> bool:
        return session_id in self._sessions

    def sessions_of(self, client: str) -> list[ExitSession]:
        """Return the sessions of one client, the oldest first."""
        return list(self._of_client.get(client, {}).values())

    def add(self, client: str, public_key: bytes, session: Session, keys: SessionKeys) -> ExitSession:
        """Register a new session of the client with ``public_key``, and the labels of its legs.

        Raises HandshakeError: handshake-replayed, when a session with its id is registered already.
        """
        if session.session_id in self._sessions:
            raise HandshakeError("handshake-replayed")
        member = ExitSession(self, client, public_key, session, keys)
        self._sessions[session.session_id] = member
        self._of_client.setdefault(client, {})[session.session_id] = member
        fields = {"id": log_id(session.session_id), **trace_fields(session.trace)}
        log.info("session opened", extra={**fields, "private": {"client": client}})
        for direction, window in member.windows.items():
            for label, number in window.labels().items():
                self._labels[label] = (member, direction, number)
        return member

    def find(self, label: bytes) -> tuple[ExitSession, Direction, int] | None:
        """Return the session, direction and leg number of ``label``; None if unknown."""
        return self._labels.get(label)

    def use(self, member: ExitSession, direction: Direction, number: int) -> None:
        """Use up the label of leg ``number``, which has joined. Raises HandshakeError."""
        removed, added = member.windows[direction].use(number)
        for label in removed:
            self._labels.pop(label, None)
        for label, new in added.items():
            self._labels[label] = (member, direction, new)

    def forget(self, member: ExitSession) -> None:
        """Discard the session: it has ended."""
        if self._sessions.pop(member.session.session_id, None) is None:
            return
        own = self._of_client[member.client]
        del own[member.session.session_id]
        if not own:
            del self._of_client[member.client]
        session = member.session
        log.info("session over", extra={"id": log_id(session.session_id), **trace_fields(session.trace)})
        for window in member.windows.values():
            for label in window.labels():
                self._labels.pop(label, None)

    def ended(self, session_id: bytes) -> None:
        """Discard the session: the client has ended it cleanly."""
        member = self._sessions.get(session_id)
        if member is not None:
            member.close(ResetCode.SHUTDOWN)

    def legs_of(self, client: str) -> int:
        """Return the number of open legs of all sessions of ``client``."""
        return self._legs_of.get(client, 0)

    def leg_joined(self, client: str, direction: Direction) -> None:
        """Count a leg of ``client``."""
        self.legs[direction] += 1
        self._legs_of[client] = self._legs_of.get(client, 0) + 1

    def leg_left(self, client: str, direction: Direction) -> None:
        """Note that the socket of a leg of ``client`` is closed."""
        self.legs[direction] -= 1
        self._legs_of[client] -= 1
        if not self._legs_of[client]:
            del self._legs_of[client]

    def close_unlisted(self, client_of: Callable[[bytes], str | None]) -> None:
        """End every session whose key ``client_of`` no longer maps to the client's name."""
        for member in self:
            if client_of(member.public_key) != member.client:
                self.counters.count("sessions-revoked")
                member.close(ResetCode.DENIED)

    def close_all(self, code: ResetCode) -> None:
        """End every session."""
        for member in self:
            member.close(code)


SessionMaker = Callable[[ClientHello, str, ShapingTerms | None, SessionTrace | None], Session]
"""Creates a session from the client's hello, its name, the granted shaping and what traces it."""
