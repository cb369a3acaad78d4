"""The records of a clock: what waits, filled up with padding to the size that they all have."""

from __future__ import annotations

import math
from typing import Final

from halftunnel_vpn.protocol.interfaces import Buffer
from halftunnel_vpn.protocol.records import MAX_RECORD, MAX_TRAIN, TAG_LENGTH
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, PacketType, encode_header
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.legs import Legs, SessionLeg
from halftunnel_vpn.session.padding_budget import PaddingBudget
from halftunnel_vpn.session.receipts import RECORD_COST
from halftunnel_vpn.session.train import Train

NEARLY_FULL: Final = 4
"""A record of which less than 1/N is padding counts as full: a stream waits for credit now and then."""

KEEPALIVE_WAIT: Final = 0.5
"""Seconds after which a keepalive whose leg gets no slot leaves without one."""

MAX_HELD: Final = 32
"""Keepalives that wait for a slot of one leg, at most: a peer may ask for answers without end."""

HELD_FOR: Final = 0.3
"""Seconds for which a path counts as slower than the clock, after a slot without a writable leg."""

_ZEROS: Final = memoryview(bytes(MAX_TRAIN))


class SlotWriter:
    """Fills and sends the records of one direction's clock."""

    __slots__ = (
        "_acknowledgements",
        "_budget",
        "_context",
        "_legs",
        "_oversize",
        "_padding",
        "_scheduler",
        "_settled",
        "data_bytes",
        "escapes",
        "held_until",
        "is_full",
        "keepalives",
        "oversize_leg",
        "padding_bytes",
        "sending",
        "slots",
    )

    def __init__(self, context: SessionContext, legs: Legs, budget: PaddingBudget) -> None:
        self._context = context
        self._acknowledgements = context.acknowledgements
        self._scheduler = context.scheduler
        self._legs = legs
        self._budget = budget
        # Keepalives that wait for a slot of their leg, and since when.
        self.keepalives: dict[SessionLeg, tuple[float, list[bytes]]] = {}
        # The last train that held nothing but padding; most are the same.
        self._padding = b""
        # Room that a packet needs which fits no cell, and on which leg.
        self._oversize = 0
        self.oversize_leg: SessionLeg | None = None
        # Until when the path and not the clock limits the rate, because it left a slot without a leg.
        self.held_until = 0.0
        # Whether the last record was full.
        self.is_full = False
        # Records, and bytes of padding and of everything else in them.
        self.slots = 0
        self.padding_bytes = self.data_bytes = 0
        # What of both is charged to the budget.
        self._settled = (0, 0)
        # Records that were no slot's or had another size, by reason.
        self.escapes: dict[str, int] = {}
        # What leaves just now, for a recording: bytes of its padding, the time of its slot, and why it is an
        # escape; None: not in a slot.
        self.sending: tuple[int, float, str] | None = None

    def settle(self, now: float) -> None:
        """Charge to the budget what has left since the last call."""
        padding, data = self.padding_bytes, self.data_bytes
        self._budget.spent(padding - self._settled[0], data - self._settled[1], now)
        self._settled = (padding, data)

    def escaped(self, reason: str) -> None:
        """Count an escape."""
        self.escapes[reason] = self.escapes.get(reason, 0) + 1
        self._context.counters.count(f"shaping-escapes-{reason}")

    def send(self, leg: SessionLeg, size: int, now: float, deadline: float, escape: str = "") -> bool:
        """Send a train of ``size`` bytes on ``leg``; return whether it holds data."""
        acknowledgements, scheduler = self._acknowledgements, self._scheduler
        if not (scheduler or acknowledgements or acknowledgements.riding or self.keepalives or escape):
            self._send_padding(leg, size, now, deadline)
            return False
        # the header of the padding always has room, except behind a packet of the greatest length
        train = Train(size if escape else size - HEADER_LENGTH)
        owed, leg.owes_proof = leg.owes_proof, False
        if acknowledgements:
            leg.owes_proof = True
            acknowledgements.write(train)
        room = train.room
        if scheduler:
            scheduler.fill(train, leg, now)
        is_served = train.room < room
        has_data = train.room < train.size
        if acknowledgements.riding:
            acknowledgements.write_receipts(train)
        if self.keepalives and leg in self.keepalives:
            self._add_keepalives(train, leg)
        room = train.room
        parts: list[Buffer] = train.parts
        if escape:
            room -= HEADER_LENGTH
        if room >= 0:
            parts.append(encode_header(PacketType.PADDING, self._context.session_id, 0, 0, 0, room))
            parts.append(_ZEROS[:room])
            padding = HEADER_LENGTH + room
        else:
            padding = 0
            size -= train.room
        self.sending = (padding, deadline, escape)
        leg.send_train(parts, now, train.packets + (padding > 0))
        self.sending = None
        leg.padding_sent += padding
        self.slots += 1
        self.padding_bytes += padding
        self.data_bytes += size - padding
        leg.under_way.sent(leg.records_sent, size + RECORD_COST, train.datagram_bytes, now)
        if leg.owes_proof:
            leg.proof_record = leg.records_sent
        leg.owes_proof = leg.owes_proof or owed
        leg.under_way.is_clocked = is_clocked = now >= self.held_until
        if is_clocked or not has_data:
            leg.under_way.idle()
        if is_served or not leg.under_way.is_full:  # otherwise it is the path that holds bulk back
            self.is_full = is_served and (room < train.size // NEARLY_FULL or escape != "")
        if scheduler and not is_served:
            needs = scheduler.needs(leg)
            if needs > train.size:
                self._oversize = needs
                self.oversize_leg = leg
        return has_data

    def _send_padding(self, leg: SessionLeg, size: int, now: float, deadline: float) -> None:
        """Send a train of ``size`` bytes that holds nothing: nothing waits."""
        padding = self._padding
        if len(padding) != size:
            room = size - HEADER_LENGTH
            header = encode_header(PacketType.PADDING, self._context.session_id, 0, 0, 0, room)
            padding = self._padding = header + _ZEROS[:room]
        self.sending = (size, deadline, "")
        leg.send_train([padding], now)
        self.sending = None
        leg.padding_sent += size
        self.slots += 1
        self.padding_bytes += size
        under_way = leg.under_way
        under_way.sent(leg.records_sent, size + RECORD_COST, 0, now)
        under_way.is_clocked = now >= self.held_until
        under_way.idle()
        if under_way.bytes < under_way.limit:  # otherwise it is the path that holds bulk back
            self.is_full = False

    def send_oversize(self, leg: SessionLeg, cell: int, now: float, deadline: float) -> int:
        """Send a packet that fits no cell of ``cell`` bytes; return how many slots it takes up.

        It was made when there was more room, or is one datagram that is longer.
        """
        count = math.ceil((self._oversize + TAG_LENGTH) / cell)
        self.oversize_leg = None
        self.escaped("oversize")
        self.send(leg, min(cell * count, MAX_RECORD) - TAG_LENGTH, now, deadline, "oversize")
        return count

    # --- keepalives ------------------------------------------------------------------------------

    def hold_keepalive(self, leg: SessionLeg, packet: bytes, now: float) -> None:
        """Let ``packet`` ride in the next record on ``leg``, unless too many wait for it."""
        waiting = self.keepalives.setdefault(leg, (now, []))[1]
        if len(waiting) >= MAX_HELD:
            self._context.counters.drop("keepalive-queue-full")
            return
        waiting.append(packet)

    def leg_of_keepalive(self, writable: list[SessionLeg]) -> SessionLeg | None:
        """Return the leg among ``writable`` for which a keepalive waits; None: none does."""
        for leg in self.keepalives:
            if leg in writable:
                return leg
        return None

    def clear(self) -> None:
        """Forget what waits: the session is over."""
        self.keepalives.clear()

    def _add_keepalives(self, train: Train, leg: SessionLeg) -> None:
        packets = self.keepalives[leg][1]
        while packets and len(packets[0]) <= train.room:
            packet = packets.pop(0)
            train.parts.append(packet)
            train.room -= len(packet)
            train.packets += 1
        if not packets:
            del self.keepalives[leg]

    def release_late_keepalives(self, now: float) -> None:
        """Send what has waited for KEEPALIVE_WAIT."""
        late = [leg for leg, waiting in self.keepalives.items() if now - waiting[0] >= KEEPALIVE_WAIT]
        for leg in late:
            self._release(leg, now)

    def release_keepalives(self, now: float) -> None:
        """Send all keepalives that wait: the clock has stopped."""
        for leg in list(self.keepalives):
            self._release(leg, now)

    def _release(self, leg: SessionLeg, now: float) -> None:
        """Send the keepalives of ``leg`` without a slot, unless it is gone."""
        _, packets = self.keepalives.pop(leg)
        if leg in self._legs.all:
            for packet in packets:
                self.escaped("keepalive")
                leg.send_train([packet], now)
