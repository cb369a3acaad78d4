"""What client and exit agree about shaping in the handshake (docs/PROTOCOL.md, "Shaping")."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from halftunnel_vpn.errors import HandshakeError
from halftunnel_vpn.protocol.wire import Buffer

TAKES_PADDING: Final = 0x02
"""Capability in both hellos: PADDING packets are understood. Shaping needs it of both ends."""

_TERMS: Final = struct.Struct(">BBIIQ")  # mode, spread, rate, overhead, budget


class ShapingMode(IntEnum):
    """What is hidden from observers of the paths; a greater mode hides more and costs more."""

    OFF = 0
    SPLIT = 1
    """The upstream runs on a clock."""
    STRONG = 3
    """Both directions run on a clock."""


class ShapingTerms(NamedTuple):
    """What a client asks for in message 1, and what the exit grants in message 2.

    ``rate`` is the downstream clock's in bytes a second, 0: the exit's choice. ``overhead`` bounds the
    downstream's padding of an hour, in hundredths of its other bytes, ``budget`` the bytes of padding in a
    day; 0: no bound. ``spreads``: batches of records go to downstream legs that are drawn by lot.
    """

    mode: ShapingMode = ShapingMode.OFF
    spreads: bool = False
    rate: int = 0
    overhead: int = 0
    budget: int = 0

    def encode(self) -> bytes:
        """Return the value of a shaping item."""
        return _TERMS.pack(self.mode, self.spreads, self.rate, self.overhead, self.budget)

    @classmethod
    def decode(cls, value: Buffer) -> ShapingTerms:
        """Reverse of :meth:`encode`; an unknown mode reads as OFF, and what follows is ignored.

        Raises HandshakeError: handshake-malformed.
        """
        if len(value) < _TERMS.size:
            raise HandshakeError("handshake-malformed", f"shaping terms of {len(value)} bytes")
        mode, spread, rate, overhead, budget = _TERMS.unpack_from(value)
        return cls(_MODES.get(mode, ShapingMode.OFF), spread == 1, rate, overhead, budget)

    def granted(self, most: ShapingMode, max_rate: int) -> ShapingTerms:
        """Return what an exit grants that allows ``most`` and ``max_rate`` bytes a second (0: any)."""
        rate = min(self.rate, max_rate) if self.rate and max_rate else self.rate or max_rate
        return self._replace(mode=min(self.mode, most), rate=rate)


_BETWEEN: Final = 2
# Reserved for a mode between SPLIT and STRONG: who does not know it gives the lesser one.

_MODES: Final = {int(mode): mode for mode in ShapingMode} | {_BETWEEN: ShapingMode.SPLIT}
