"""Reads many datagrams of a socket in one system call: recvmmsg(2), which Python's socket module lacks."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Final

from halftunnel_vpn.protocol.datagram import MAX_RUN_SEGMENTS

SLOTS: Final = 64
"""Datagrams read by one call, at the most."""

SLOT_SIZE: Final = 65536
"""Bytes for one: the longest datagram, or what UDP_GRO makes of several. Pages never used take no memory."""

MAX_JOINED: Final = 65000
"""Bytes of datagrams that are joined, at the most: they fit one run."""

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
"""Source address (4 or 16 bytes), its port, data, and the size of each datagram in it, 0 for one alone."""


class DatagramBatch:
    """Buffers for the datagrams of one read; one is enough for all sockets of a process."""

    __slots__ = (
        "_address",
        "_blank",
        "_blank_one",
        "_control",
        "_controls",
        "_data",
        "_lengths",
        "_messages",
        "_names",
        "_raw",
    )

    def __init__(self) -> None:
        data = bytearray(SLOTS * SLOT_SIZE)
        names = bytearray(SLOTS * _NAME_SIZE)
        control = bytearray(SLOTS * _CONTROL_SIZE)
        vectors = (_IoVec * SLOTS)()
        messages = (_Message * SLOTS)()
        data_at, names_at, control_at = (
            ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))
            for memory in (data, names, control)
        )
        for slot in range(SLOTS):
            vectors[slot] = _IoVec(data_at + slot * SLOT_SIZE, SLOT_SIZE)
            messages[slot].header = _MessageHeader(
                names_at + slot * _NAME_SIZE,
                _NAME_SIZE,
                ctypes.addressof(vectors) + slot * ctypes.sizeof(_IoVec),
                1,
                control_at + slot * _CONTROL_SIZE,
                _CONTROL_SIZE,
                0,
            )
        self._messages = (messages, vectors)  # kept, since the kernel is given their addresses
        self._address = ctypes.addressof(messages)
        self._data = memoryview(data)
        self._names = memoryview(names)
        self._control = control
        self._raw = memoryview(messages).cast("B")
        self._blank = bytes(self._raw)  # the kernel writes into name_length, control_length and flags
        self._blank_one = self._blank[:_MESSAGE_SIZE]
        self._lengths = self._raw.cast("I")
        self._controls = self._raw.cast("P")

    def receive(self, sock: socket.socket, *, join: bool) -> tuple[int, list[Received]]:
        """How many datagrams there were, and what they make: with ``join`` those alike in a row are one.

        SLOTS datagrams mean that there may be more. Raises OSError as recvmsg(2) does, BlockingIOError when
        nothing is there.
        """
        count = _recvmmsg(sock.fileno(), self._address, SLOTS, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                raise BlockingIOError(number, os.strerror(number))
            raise OSError(number, os.strerror(number))
        if count == 1:
            length, control_length = self._lengths[_LENGTH_AT], self._controls[_CONTROL_AT]
            self._raw[:_MESSAGE_SIZE] = self._blank_one
            segment = self._segment_size(0) if control_length else 0
            name = bytes(self._names[:_NAME_SIZE])
            return 1, [(*_source(name), bytes(self._data[:length]), segment)]
        lengths = self._lengths[_LENGTH_AT : count * _LENGTH_STEP : _LENGTH_STEP].tolist()
        controls = self._controls[_CONTROL_AT : count * _CONTROL_STEP : _CONTROL_STEP].tolist()
        used = count * _MESSAGE_SIZE
        self._raw[:used] = self._blank[:used]
        names = bytes(self._names[: count * _NAME_SIZE])
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
            runs.append(
                (*_source(name), self._joined(first, end, lengths), segment or _size(first, end, lengths))
            )
            first = end
        return count, runs

    def _segment_size(self, slot: int) -> int:
        _, level, kind, segment = _GRO.unpack_from(self._control, slot * _CONTROL_SIZE)
        return segment if level == socket.IPPROTO_UDP and kind == UDP_GRO else 0

    def _joined(self, first: int, end: int, lengths: list[int]) -> bytes:
        data = self._data
        if end == first + 1:
            return bytes(data[first * SLOT_SIZE : first * SLOT_SIZE + lengths[first]])
        starts = range(first * SLOT_SIZE, end * SLOT_SIZE, SLOT_SIZE)
        return b"".join(
            [data[start : start + length] for start, length in zip(starts, lengths[first:end], strict=True)]
        )


def _size(first: int, end: int, lengths: list[int]) -> int:
    return lengths[first] if end > first + 1 else 0


def _end_of_run(
    first: int, count: int, lengths: list[int], controls: list[int], names: bytes, name: bytes
) -> int:
    """Behind the last datagram that can go with ``first``: of one source and size, the last maybe shorter."""
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
    """Address and port in a sockaddr."""
    return name[4:8] if name[:2] == _INET else name[8:24], name[2] << 8 | name[3]


_INET: Final = struct.pack("=H", socket.AF_INET)
