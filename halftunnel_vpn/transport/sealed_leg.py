"""A leg that has joined a session: records outside, trains inside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import IllegalTransition, PeerError, RecordError, RoadError, SessionExpired
from halftunnel_vpn.protocol.keys import LegKeys
from halftunnel_vpn.protocol.records import TAG_LENGTH, Opener, Sealer
from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.session.acknowledgements import ACK_LENGTH
from halftunnel_vpn.session.keepalive import LEG_SILENT
from halftunnel_vpn.session.legs import LegIdentity, Movement, SessionLeg
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.transport.leg import Leg, LegListener
from halftunnel_vpn.transport.leg_phase import PEER_FAULTS

LOSS_FACTOR = 2
"""The loss of a leg is charged with N times its time: its data is sent again later."""

RECEIPT_ALONE = TAG_LENGTH + ACK_LENGTH
"""Bytes beside the padding of a record that holds nothing but padding and a receipt."""

MAX_REST = 1.0
"""Seconds for which a leg is not read, at most, before it is asked again whether it may be."""


class LegOwner(NamedTuple):
    """Gives a leg its clock and counters, and is called about its life."""

    clock: Callable[[], float]
    counters: Counters
    # Called once with the leg's state and the reason, after the session has discarded the leg.
    lost: Callable[[SessionLeg, str], None]
    # Called with the reason when the peer has violated the protocol.
    refused: Callable[[str], None] = lambda reason: None
    # Called with the length of each record, the seconds that it took, and the time when it came. Returns for
    # how many seconds the leg should not be read (exit). The last argument tells whether it holds data.
    served: Callable[[int, float, float, bool], float] | None = None


class SealedLeg:
    """Joins a WebSocket and a session; implements LegPort for the session and LegListener for the WebSocket.

    ``state`` is the session's record of the leg.
    """

    __slots__ = (
        "_clock",
        "_counters",
        "_leg",
        "_on_lost",
        "_open",
        "_padding",
        "_refused",
        "_seal",
        "_served",
        "_session",
        "state",
    )

    def __init__(
        self, leg: Leg, session: Session, keys: LegKeys, identity: LegIdentity, owner: LegOwner
    ) -> None:
        outward, inward = keys.client_to_exit, keys.exit_to_client
        if not session.is_client:
            outward, inward = inward, outward
        self._seal = Sealer(outward).seal
        self._open = Opener(inward).open
        # Bytes of padding when the last record came (exit).
        self._padding = 0
        self._leg = leg
        self._session = session
        self._clock, self._counters, self._on_lost, self._refused, self._served = owner
        self.state = SessionLeg(self, identity, self._clock())

    def listen_through(self, listener: LegListener) -> None:
        """Have the WebSocket report to ``listener``, which calls this leg in its turn."""
        self._leg.listener = listener

    # --- LegPort ---------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether the kernel holds little enough for another train."""
        return self._leg.writable

    def send_train(self, parts: Sequence[Buffer]) -> int:
        """Seal and send one train; returns the record's length. A leg whose key is used up is closed."""
        try:
            record = self._seal(parts)
        except RecordError as error:
            self.close(error.reason)
            return 0
        try:
            self._leg.send(record)
        except RoadError:
            return 0  # closed meanwhile: once it is lost, what it should have carried goes out again
        return len(record)

    def set_pace(self, pace: float) -> None:
        """Limit the pace to ``pace`` bytes per second; 0 means no limit."""
        self._leg.set_pace(pace)

    def movement(self) -> Movement:
        """Return how far the bytes of the leg have come."""
        return self._leg.movement()

    def close(self, reason: str) -> None:
        """Close the leg. Nothing more is sent on it. The data that it carried is sent again on others."""
        self._counters.count(f"legs-closed-{reason}")
        if reason == LEG_SILENT:
            self._leg.abort(reason)  # a silent peer would not answer a Close frame
        else:
            self._leg.close()
        self._lost()

    # --- LegListener -----------------------------------------------------------------------------

    def leg_opened(self, leg: Leg) -> None:
        """The leg was open before it joined."""

    def record_received(self, leg: Leg, record: Buffer) -> None:
        """Open the record and hand its train over; a peer that breaks the protocol loses the leg."""
        began = self._clock()
        try:
            self._session.train_received(self.state, self._open(record), began)
        except SessionExpired:
            self._counters.count("sessions-ended-by-peer")
            self._session.ended_by_peer(began)
        except (PeerError, IllegalTransition) as error:
            reason = error.reason if isinstance(error, PeerError) else "illegal-transition"
            self._broken(reason)
            self._leg.refuse()  # the next record must not be tried
            self._session.leg_lost(self.state, self._clock())
        if self._served is not None:
            padding = self.state.padding_received - self._padding
            self._padding += padding
            is_data = not padding or len(record) - padding > RECEIPT_ALONE
            seconds = self._served(len(record), self._clock() - began, began, is_data)
            if seconds > 0:
                self._rest(seconds)

    def _rest(self, seconds: float) -> None:
        """Let the leg be unread for ``seconds``, at most MAX_REST of them at a time."""
        self._counters.count("legs-rested")
        self._leg.pause()
        asyncio.get_running_loop().call_later(min(seconds, MAX_REST), self._go_on)

    def _go_on(self) -> None:
        assert self._served is not None
        seconds = self._served(0, 0.0, self._clock(), True)
        if seconds > 0:
            self._rest(seconds)
        else:
            self._leg.resume()

    def leg_writable(self, leg: Leg) -> None:
        """The WebSocket has room again."""
        pacer = self.state.under_way.pacer
        loses, repeats = leg.losses()
        if repeats:
            self._counters.count("legs-repeating")
            self._session.leg_repeats(self.state, self._clock())
        if loses:
            self._counters.count("legs-lossy")
            self._session.leg_loses(self.state, self._clock())
        elif pacer.pace:
            pacer.holds(leg.unsent, self._clock())
        self._session.wake()

    def leg_closed(self, leg: Leg, reason: str) -> None:
        """The WebSocket is gone."""
        if reason in PEER_FAULTS:
            self._broken(reason)
        self._lost()
        self._on_lost(self.state, reason)

    def _lost(self) -> None:
        """Report the loss to the session. With many streams that is work, which counts as the client's."""
        began = self._clock()
        self._session.leg_lost(self.state, began)
        if self._served is not None:
            now = self._clock()
            self._served(0, (now - began) * LOSS_FACTOR, now, True)

    def _broken(self, reason: str) -> None:
        self._counters.drop(reason)
        self._refused(reason)
