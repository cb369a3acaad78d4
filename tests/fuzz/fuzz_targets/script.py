"""Bytes read as a script: numbers and pieces, so that a fuzzer can steer more than one call."""

from __future__ import annotations


class Script:
    """Reads from the front; what is missing at the end reads as zero, or as less."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes, fewer at the end."""
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    def number(self, width: int = 1) -> int:
        """The next ``width`` bytes as an unsigned number."""
        return int.from_bytes(self.take(width), "big")

    def near(self, origin: int, *, escape: int = 0x80) -> int:
        """A 32-bit number: mostly one within 127 of ``origin``; the byte ``escape`` announces any other."""
        first = self.number()
        if first == escape:
            return self.number(4)
        return (origin + (first if first < 0x80 else first - 0x100)) & 0xFFFF_FFFF

    def piece(self) -> bytes:
        """The next bytes, as many as two bytes in front of them say."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._data))


def pieces(*parts: bytes) -> bytes:
    """Reverse of :meth:`Script.piece`, for a corpus."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)
