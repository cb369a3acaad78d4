"""What byte streams and datagram streams have in common: what scheduler, legs and dispatch know of them."""

from __future__ import annotations

from halftunnel_vpn.protocol.interfaces import Buffer
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind
from halftunnel_vpn.protocol.trace_ports import StreamTrace
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.legs import SessionLeg
from halftunnel_vpn.session.send_side import SendSide
from halftunnel_vpn.session.train import Train


class Stream:
    """One stream of a session. :class:`ByteStream` and :class:`DatagramStream` are the two kinds."""

    __slots__ = (
        # Bytes that the stream may still send in its turn; negative when the last turn took too many.
        "deficit",
        # Whether a FIN follows the DATA packet that is being delivered.
        "fin_follows",
        # Whether the stream is in the session's table, so that packets reach it.
        "is_registered",
        "kind",
        # Address of the router that the peer blames, when it has reset the stream; empty otherwise.
        "offender",
        # The scheduler's queue that holds the stream; None while it has nothing to send.
        "queue",
        # Whether this end has reset the stream, or the peer has.
        "resetting",
        # The sending half: packets in order, kept until they are acknowledged.
        "sending",
        "stream_id",
        # Is called about opening and first byte; None: the stream is not traced.
        "trace",
    )

    def __init__(
        self, stream_id: int, kind: StreamKind, sending: SendSide, trace: StreamTrace | None
    ) -> None:
        self.stream_id = stream_id
        self.kind = kind
        self.sending = sending
        self.queue: object | None = None
        self.deficit = 0
        self.is_registered = False
        self.resetting = False
        self.fin_follows = False
        self.offender = b""
        self.trace = trace

    @property
    def cost(self) -> int:
        """Bytes of memory that the stream is counted with for being there."""
        raise NotImplementedError

    @property
    def is_urgent(self) -> bool:
        """Whether the stream goes before bulk transfers."""
        raise NotImplementedError

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do for the stream at this end."""
        raise NotImplementedError

    @property
    def has_something_to_send(self) -> bool:
        """Whether a train would get a packet of this stream now."""
        raise NotImplementedError

    @property
    def needs(self) -> int:
        """Room in bytes without which :meth:`fill` adds nothing; 0 when it adds nothing anyway."""
        return self.sending.needs

    def take_alone(self, leg: SessionLeg, now: float) -> list[Buffer]:
        """Take the packet that waits, as the parts of a train of its own on ``leg``.

        Return nothing unless that is all that waits, and it is not acknowledged and may leave now.
        """
        return []

    def must_wait(self, leg: SessionLeg) -> bool:
        """Return whether nothing may leave on ``leg`` now."""
        raise NotImplementedError

    def fill(self, train: Train, leg: SessionLeg, limit: int, now: float) -> int:
        """Add packets to ``train``, ``limit`` bytes or one packet more; return the bytes added."""
        raise NotImplementedError

    def packet_arrived(self, type_: PacketType, sequence: int, payload: memoryview, now: float) -> None:
        """Take a DATA, FIN or OPEN packet of the peer. Raises FlowControlError when it breaks the rules."""
        raise NotImplementedError

    def acknowledged(self, number: int, now: float) -> None:
        """Take the peer's cumulative acknowledgement. Raises FlowControlError for what was never sent."""
        raise NotImplementedError

    def credited(self, limit: int, now: float) -> None:
        """Take the peer's credit: a cumulative limit in bytes."""
        raise NotImplementedError

    def owe_acknowledgement(self) -> None:
        """Acknowledge again with the next train: what was sent before may be lost."""
        raise NotImplementedError

    def reset(self, code: ResetCode) -> None:
        """Drop everything and report ``code`` to the peer; do nothing when the stream is over."""
        raise NotImplementedError

    def reset_received(self, code: ResetCode, now: float) -> None:
        """End the stream, as the peer asks."""
        raise NotImplementedError

    def break_off(self, code: ResetCode, now: float) -> None:
        """End a stream on which the peer broke the rules; report ``code`` to the peer and to the user."""
        raise NotImplementedError

    def settle(self) -> None:
        """Release everything: nothing is left to do for the stream."""
        raise NotImplementedError
