"""The legs of a session, and the policy that chooses the one for the next train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.interfaces import Buffer
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.receipts import InFlight

SHARE_PATIENCE: Final = 0.1
"""Longest time in seconds that bulk waits for a leg without receipts, to keep the shares."""


REPORTED: Final = (
    "bytes-sent",
    "bytes-received",
    "messages-sent",
    "messages-received",
    "packets-sent",
    "packets-received",
    "padding-sent",
    "padding-received",
)
"""Quantities of each direction that legs count, as they are named after ``upstream-`` or ``downstream-``."""


class Movement(NamedTuple):
    """How far the bytes of a leg have come: bytes ``given`` to its socket so far, ``taken`` of them by the
    next hop, and ``received`` from there. They only grow, and do not depend on records."""

    given: int
    taken: int
    received: int


NO_MOVEMENT: Final = Movement(0, 0, 0)


class LegIdentity(NamedTuple):
    """Names a leg that joins. ``domain`` is what keepalive intervals are remembered by."""

    direction: Direction
    number: int
    name: str = ""
    domain: str = ""
    address: str = ""
    weight: int = 1
    # Whether it was opened for what is urgent.
    is_urgent: bool = False


class LegPort(Protocol):
    """A leg as the session sees it: something that seals trains and sends them."""

    @property
    def writable(self) -> bool:
        """Whether the kernel holds little enough for another train."""
        ...

    def send_train(self, parts: Sequence[Buffer]) -> int:
        """Seal and send one train; returns the length of the record in bytes."""
        ...

    def set_pace(self, pace: float) -> None:
        """Limit the pace to ``pace`` bytes per second from now on; 0 means no limit."""
        ...

    def movement(self) -> Movement:
        """Return how far its bytes have come; NO_MOVEMENT if unknown."""
        ...

    def close(self, reason: str) -> None:
        """Close the leg cleanly; ``reason`` is a counted label."""
        ...


class SessionLeg:
    """What a session knows of one leg. Times are monotonic seconds."""

    __slots__ = (
        "address",
        "bytes_received",
        "bytes_sent",
        "direction",
        "domain",
        "draining",
        "gives_receipts",
        "handicap",
        "interval",
        "is_reserved",
        "is_urgent",
        "is_watched",
        "last_received",
        "last_round_trip",
        "last_sent",
        "name",
        "number",
        "opened_at",
        "outstanding",
        "owes_proof",
        "packets_received",
        "packets_sent",
        "padding_received",
        "padding_sent",
        "padding_train",
        "ping_id",
        "ping_sent",
        "port",
        "proof_record",
        "proofs",
        "proves_by_hearing",
        "records_received",
        "records_sent",
        "reported",
        "round_trip",
        "silence",
        "told_at",
        "under_way",
        "untold_bytes",
        "weight",
    )

    def __init__(
        self,
        port: LegPort,
        identity: LegIdentity,
        now: float,
    ) -> None:
        # Seals trains and sends them.
        self.port = port
        self.direction, self.number, self.name, self.domain, self.address, self.weight, self.is_urgent = (
            identity
        )
        # Whether it carries only what is urgent now.
        self.is_reserved = False
        self.opened_at = self.last_received = self.last_sent = now
        # The smoothed round trip of keepalives; None until it is measured.
        self.round_trip: float | None = None
        # The last sample of it.
        self.last_round_trip = 0.0
        # Seconds between keepalives; 0 until known.
        self.interval = 0.0
        # Seconds without traffic that the ping under way ended; 0: it was not sent after a silence.
        self.silence = 0.0
        # The number of the last ping, and when it was sent; 0: no ping waits for its answer.
        self.ping_id = 0
        self.ping_sent = 0.0
        # Packets that it carried and nothing has acknowledged.
        self.outstanding = 0
        # Packets that were acknowledged and had been carried by it.
        self.proofs = 0
        # Whether it carried something that nothing acknowledges, so that only a ping shows that it arrived.
        self.owes_proof = False
        # The record whose receipt is the proof that it owes (shaping); 0: no receipt is.
        self.proof_record = 0
        # Whether it only receives, so that its silence after data is a reason to ping.
        self.proves_by_hearing = False
        # Whether its liveness is being checked.
        self.is_watched = False
        # Whether it is retired: nothing new is sent on it.
        self.draining = False
        # Bytes received that no receipt has reported.
        self.untold_bytes = 0
        # When the last record came that a receipt has reported.
        self.told_at = 0.0
        # Whether receipts have been sent for it.
        self.gives_receipts = False
        # Bytes sent that no receipt has reported, and what receipts show about the path.
        self.under_way = InFlight()
        self.bytes_sent = self.bytes_received = 0
        # Bytes of PADDING packets, headers included.
        self.padding_sent = self.padding_received = 0
        # The last train of padding alone, which the next one most likely equals; None equals no train.
        self.padding_train: bytes | None = None
        # Bytes that it counts as having sent before it joined.
        self.handicap = 0.0
        self.records_sent = self.records_received = 0
        self.packets_sent = self.packets_received = 0
        # What the last :meth:`report` has counted, in the order of REPORTED.
        self.reported = (0,) * len(REPORTED)

    def send_train(self, parts: Sequence[Buffer], now: float, packets: int = 1) -> None:
        """Send one train of ``packets`` packets on this very leg and count it."""
        self.bytes_sent += self.port.send_train(parts)
        self.records_sent += 1
        self.packets_sent += packets
        self.last_sent = now

    def takes(self, most: int) -> bool:
        """Return whether it can be written, and has fewer than ``most`` bytes under way."""
        return self.port.writable and self.under_way.bytes + self.under_way.datagram_bytes < most

    def report(self, counters: Counters) -> None:
        """Add what the leg has carried since the last report to the totals of its direction."""
        name = self.direction.name.lower()
        now = (
            self.bytes_sent,
            self.bytes_received,
            self.records_sent,
            self.records_received,
            self.packets_sent,
            self.packets_received,
            self.padding_sent,
            self.padding_received,
        )
        before, self.reported = self.reported, now
        for quantity, old, new in zip(REPORTED, before, now, strict=True):
            if new != old:
                counters.count(f"{name}-{quantity}", new - old)

    @property
    def path(self) -> str:
        """What names its path, as far as this end knows it."""
        return f"{self.name} {self.address}"

    @property
    def load(self) -> float:
        """Bytes that it has carried, or counts as having carried, for each unit of its weight."""
        return (self.bytes_sent + self.handicap) / self.weight


class LegPolicy(Protocol):
    """Chooses the leg for the next train. Legs pull: only writable ones are offered, and at least one."""

    def choose(self, writable: Sequence[SessionLeg], now: float) -> SessionLeg:
        """One of ``writable``."""
        ...

    def waits(self, leg: SessionLeg, now: float) -> bool:
        """Whether bulk waits for ``leg``, which was chosen and has enough under way, and goes on no other."""
        ...


class Legs:
    """``all`` legs of a session, and the ``senders`` among them.

    What is urgent has the leg ``urgent`` to itself, if there is one; ``policy`` chooses one of ``shared`` for
    each other train.
    """

    __slots__ = ("all", "policy", "senders", "shared", "urgent")

    def __init__(self, policy: LegPolicy) -> None:
        self.policy = policy
        self.all: list[SessionLeg] = []
        self.senders: list[SessionLeg] = []
        self.shared: list[SessionLeg] = []
        self.urgent: SessionLeg | None = None

    def add_sender(self, leg: SessionLeg) -> None:
        """Send on ``leg`` from now on."""
        self.senders.append(leg)
        self.divide()

    def discard_sender(self, leg: SessionLeg) -> None:
        """Send nothing new on ``leg``."""
        if leg in self.senders:
            self.senders.remove(leg)
            leg.is_reserved = False
            self.divide()

    def divide(self) -> None:
        """Reserve the newest urgent leg if another leg can carry everything else."""
        shared = [leg for leg in self.senders if not leg.is_urgent]
        urgent = [leg for leg in self.senders if leg.is_urgent]
        is_divided = bool(shared and urgent)
        self.urgent = urgent[-1] if is_divided else None
        self.shared[:] = shared if is_divided else self.senders
        for leg in self.senders:
            leg.is_reserved = leg is self.urgent

    def of(self, direction: Direction) -> list[SessionLeg]:
        """Return the legs that carry ``direction`` now."""
        return [leg for leg in self.all if leg.direction is direction]


class RoundRobin:
    """Every writable leg in turn, so that a faster leg, which is writable more often, carries more."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, writable: Sequence[SessionLeg], now: float) -> SessionLeg:
        """Return the next in turn."""
        self._turn += 1
        return writable[self._turn % len(writable)]

    def waits(self, leg: SessionLeg, now: float) -> bool:
        """Return False: the other legs carry more."""
        return False


class Weighted:
    """The writable leg that has carried least for its weight; a new one counts as having carried its part."""

    __slots__ = ()

    def choose(self, writable: Sequence[SessionLeg], now: float) -> SessionLeg:
        """Return the leg with the least load."""
        return min(writable, key=_load)

    def waits(self, leg: SessionLeg, now: float) -> bool:
        """Return whether to wait for a full leg; otherwise the smaller share would get its data."""
        since = leg.under_way.full_since
        return since is not None and now - since < SHARE_PATIENCE


def _load(leg: SessionLeg) -> float:
    return leg.load
