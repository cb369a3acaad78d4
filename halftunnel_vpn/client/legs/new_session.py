"""A session that a handshake has just made, with its first legs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from halftunnel_vpn.client.legs.early_messages import EarlyMessages
from halftunnel_vpn.errors import RoadError
from halftunnel_vpn.protocol.handshake_payloads import ExitHello
from halftunnel_vpn.protocol.keys import Direction, LegKeys, SessionKeys
from halftunnel_vpn.protocol.records import Sealer
from halftunnel_vpn.protocol.stream_messages import ResetCode, encode_goodbye
from halftunnel_vpn.protocol.trace_ports import SessionTrace
from halftunnel_vpn.transport.leg import Leg


@dataclass(frozen=True, slots=True)
class NewLeg:
    """A leg that may carry trains as soon as it has a listener."""

    leg: Leg
    early: EarlyMessages
    direction: Direction
    number: int
    keys: LegKeys
    url: str
    dialled_at: float


@dataclass(frozen=True, slots=True)
class NewSession:
    """The result of a handshake: the keys, what the exit grants, and the first leg of each direction."""

    session_id: bytes
    keys: SessionKeys
    exit_hello: ExitHello
    upstream: NewLeg
    downstream: NewLeg
    trace: SessionTrace | None
    """None: the session is not traced."""

    def discard(self) -> None:
        """End a session that nothing will use: let the exit discard it too, and close its legs."""
        upstream = self.upstream
        # Nothing was sent on this leg before, so its key has not been used.
        goodbye = encode_goodbye(self.session_id, ResetCode.SHUTDOWN)
        record = Sealer(upstream.keys.client_to_exit).seal([goodbye])
        with contextlib.suppress(RoadError):  # it is lost already, and the exit discards the session in time
            upstream.leg.send(record)
        upstream.leg.close()
        self.downstream.leg.close()
