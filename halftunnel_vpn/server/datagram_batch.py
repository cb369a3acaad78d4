"""Reads many datagrams of a socket in one system call: recvmmsg(2), which Python's socket module lacks."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from typing import Final, NamedTuple

from halftunnel_vpn.protocol.datagram import MAX_RUN_SEGMENTS

SLOTS: Final = MAX_RUN_SEGMENTS
"""The most datagrams that one call reads: as many as one run may have."""

SLOT_SIZE: Final = 65536
"""Bytes of the longest datagram, or of several that UDP_GRO joins. Unused pages take no memory."""

MAX_JOINED: Final = 65000
"""The most bytes of datagrams that are joined. They fit into one run."""

FIRST_SIZE: Final = 1472
"""The expected size of the first datagram: what an Ethernet frame has room for."""

MANY: Final = 8
"""From this many datagrams in one read on, the sender probably has more."""

MAX_LAYOUTS: Final = 32
"""Expected sizes whose kernel tables are cached. All are rebuilt when there are more."""

UDP_GRO: Final = 104

_NAME_SIZE: Final = 32  # sockaddr_in6 has 28 bytes
_CONTROL_SIZE: Final = 32
_GRO: Final = struct.Struct("@nii i")  # a cmsghdr and the segment size


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MessageHeader(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _MessageHeader), ("length", ctypes.c_uint32))


_MESSAGE_SIZE: Final = ctypes.sizeof(_Message)
_LENGTH_AT: Final = _Message.length.offset // 4
_LENGTH_STEP: Final = _MESSAGE_SIZE // 4
_CONTROL_AT: Final = (_Message.header.offset + _MessageHeader.control_length.offset) // ctypes.sizeof(
    ctypes.c_size_t
)
_CONTROL_STEP: Final = _MESSAGE_SIZE // ctypes.sizeof(ctypes.c_size_t)

_recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_recvmmsg.restype = ctypes.c_int

Received = tuple[bytes, int, bytes, int]
"""Source address (4 or 16 bytes), port, data, and the size of each datagram in it; 0 for a single one."""


class Reading(NamedTuple):
    """The result of one read: ``runs``, whether there may be ``more``, and the size to expect next."""

    runs: list[Received]
    more: bool
    expected: int

    @property
    def has_many(self) -> bool:
        """Whether it has MANY datagrams or more. Those of one size and source are in the last run."""
        if len(self.runs) >= MANY:
            return True
        *_, data, segment_size = self.runs[-1]
        return segment_size > 0 and len(data) >= MANY * segment_size


class DatagramBatch:
    """Buffers for the datagrams of one read. One instance serves all sockets of a process.

    Datagrams of the expected size lie next to each other in memory, so that a flood of one size and source
    needs no joining. The rest of a longer datagram goes to another buffer.
    """

    __slots__ = (
        "_address",
        "_blank",
        "_control",
        "_controls",
        "_data",
        "_expected",
        "_first",
        "_layouts",
        "_lengths",
        "_messages",
        "_names",
        "_raw",
        "_start",
        "_vectors",
    )

    def __init__(self) -> None:
        data = bytearray((SLOTS + 1) * SLOT_SIZE)
        names = bytearray(SLOTS * _NAME_SIZE)
        control = bytearray(SLOTS * _CONTROL_SIZE)
        vectors = (_IoVec * (2 * SLOTS))()
        messages = (_Message * SLOTS)()
        data_at, names_at, control_at = (
            ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))
            for memory in (data, names, control)
        )
        for slot in range(SLOTS):
            messages[slot].header = _MessageHeader(
                names_at + slot * _NAME_SIZE,
                _NAME_SIZE,
                ctypes.addressof(vectors) + 2 * slot * ctypes.sizeof(_IoVec),
                2,
                control_at + slot * _CONTROL_SIZE,
                _CONTROL_SIZE,
                0,
            )
        self._messages = messages  # keep a reference: the kernel uses its address
        self._vectors = memoryview(vectors).cast("B")
        self._address = ctypes.addressof(messages)
        self._start = data_at
        self._data = memoryview(data)
        self._first = self._data[:SLOT_SIZE]
        self._names = memoryview(names)
        self._control = control
        self._raw = memoryview(messages).cast("B")
        self._blank = bytes(self._raw)  # the kernel writes into name_length, control_length and flags
        self._lengths = self._raw.cast("I")
        self._controls = self._raw.cast("P")
        self._layouts: dict[int, bytes] = {}
        self._expected = 0

    def receive(self, sock: socket.socket, expected: int, *, join: bool) -> Reading:
        """Read the waiting datagrams that fit into one run, of ``expected`` bytes each.

        With ``join`` consecutive datagrams of one source and size become one run. Begin with FIRST_SIZE, and
        continue with the size in the last reading. Raises OSError like recvmsg(2), BlockingIOError if no
        datagram waits.
        """
        if expected != self._expected:
            self._expect(expected)
        limit = min(SLOTS, MAX_JOINED // expected) or 1
        count = _recvmmsg(sock.fileno(), self._address, limit, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                raise BlockingIOError(number, os.strerror(number))
            raise OSError(number, os.strerror(number))
        used = count * _MESSAGE_SIZE
        if count == 1:
            length, control_length = self._lengths[_LENGTH_AT], self._controls[_CONTROL_AT]
            self._raw[:used] = self._blank[:used]
            segment = self._segment_size(0) if control_length else 0
            runs = [(*_source(bytes(self._names[:_NAME_SIZE])), self._piece(0, length), segment)]
            if length and (length > expected or limit == 1):
                expected = length
            return Reading(runs, limit == 1, expected)
        lengths = self._lengths[_LENGTH_AT : count * _LENGTH_STEP : _LENGTH_STEP].tolist()
        controls = self._controls[_CONTROL_AT : count * _CONTROL_STEP : _CONTROL_STEP].tolist()
        self._raw[:used] = self._blank[:used]
        names = bytes(self._names[: count * _NAME_SIZE])
        longest = max(lengths)
        if (
            join
            and longest == expected
            and lengths[-1]
            and lengths.count(expected) >= count - (lengths[-1] != expected)
            and not any(controls)
            and names == names[:_NAME_SIZE] * count
        ):
            data = bytes(self._data[: (count - 1) * expected + lengths[-1]])
            runs = [(*_source(names), data, expected)]
        else:
            runs = self._sorted_out(count, lengths, controls, names, join=join)
        return Reading(runs, count == limit, longest or expected)

    def receive_one(self, sock: socket.socket, family: int, expected: int) -> Reading:
        """Read one datagram, or several that the kernel has joined, for less than :meth:`receive`.

        More may wait, though the reading does not say so. Raises OSError like recvmsg(2).
        """
        length, control, _, source = sock.recvmsg_into((self._first,), _CONTROL_SIZE)
        segment = 0
        for level, kind, value in control:
            if level == socket.IPPROTO_UDP and kind == UDP_GRO:
                segment = int.from_bytes(value, sys.byteorder)
        received = socket.inet_pton(family, source[0]), source[1], bytes(self._first[:length]), segment
        return Reading([received], False, max(expected, length))

    def _expect(self, size: int) -> None:
        """Arrange the buffers for datagrams of ``size`` bytes."""
        layout = self._layouts.get(size)
        if layout is None:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            first = self._start
            table: list[int] = []
            for slot in range(min(SLOTS, MAX_JOINED // size) or 1):
                table += first + slot * size, size, first + (slot + 1) * SLOT_SIZE, SLOT_SIZE
            layout = self._layouts[size] = struct.pack(f"@{len(table)}N", *table)
        self._vectors[: len(layout)] = layout
        self._expected = size

    def _sorted_out(
        self, count: int, lengths: list[int], controls: list[int], names: bytes, *, join: bool
    ) -> list[Received]:
        """Return the runs of a reading with several sizes or sources."""
        runs: list[Received] = []
        first = 0
        while first < count:
            name = names[first * _NAME_SIZE : (first + 1) * _NAME_SIZE]
            end = first + 1
            segment = 0
            if controls[first]:
                segment = self._segment_size(first)
            elif join:
                end = _end_of_run(first, count, lengths, controls, names, name)
                segment = lengths[first] if end > first + 1 else 0
            pieces = [self._piece(slot, lengths[slot]) for slot in range(first, end)]
            runs.append((*_source(name), pieces[0] if end == first + 1 else b"".join(pieces), segment))
            first = end
        return runs

    def _segment_size(self, slot: int) -> int:
        _, level, kind, segment = _GRO.unpack_from(self._control, slot * _CONTROL_SIZE)
        return segment if level == socket.IPPROTO_UDP and kind == UDP_GRO else 0

    def _piece(self, slot: int, length: int) -> bytes:
        """Return the datagram of ``length`` bytes in a slot."""
        size, data = self._expected, self._data
        start = slot * size
        if length <= size:
            return bytes(data[start : start + length])
        rest = (slot + 1) * SLOT_SIZE
        return b"".join((data[start : start + size], data[rest : rest + length - size]))


def _end_of_run(
    first: int, count: int, lengths: list[int], controls: list[int], names: bytes, name: bytes
) -> int:
    """Return the end of the run that begins with ``first``: one source and size, the last maybe shorter."""
    size = lengths[first]
    if not size:
        return first + 1
    last = min(count, first + min(MAX_RUN_SEGMENTS, MAX_JOINED // size))
    end = first + 1
    while end < last and 0 < lengths[end] <= size and not controls[end]:
        if names[end * _NAME_SIZE : (end + 1) * _NAME_SIZE] != name:
            break
        end += 1
        if lengths[end - 1] < size:
            break
    return end


def _source(name: bytes) -> tuple[bytes, int]:
    """Return address and port of a sockaddr."""
    return name[4:8] if name[:2] == _INET else name[8:24], name[2] << 8 | name[3]


_INET: Final = struct.pack("=H", socket.AF_INET)
