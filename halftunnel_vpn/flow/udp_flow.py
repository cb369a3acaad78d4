"""UDP flows: one stream for one local endpoint, whatever its destinations are (RFC 4787, REQ-1)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.flow.datagrams import DatagramFlow
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.udp_runs import MIN_V4, MIN_V6, header_sum
from halftunnel_vpn.inet import ip, udp
from halftunnel_vpn.protocol.datagram import MAX_RUN_DATA, MAX_RUN_SEGMENTS, DataRun, encode_run_header
from halftunnel_vpn.protocol.wire import Buffer

MAX_RUN_HEADERS: Final = 64
"""Run headers that a flow caches. Nearly every flow has only one destination."""

READER_SHARE: Final = 64 * 1024
"""Bytes that a flow writes to the host, counted as its socket counts them, before the reader gets a turn.
It is a third of the default size of a socket's receive buffer."""

SOCKET_COST: Final = 768
"""Bytes that a socket counts for each datagram in addition to its payload, approximately."""

_HEADER: Final = struct.Struct(">HHHH")


DNS_PORT: Final = 53
DNS_IDLE: Final = 17.0
"""Seconds for a flow that has only sent DNS queries (RFC 4787, REQ-5 a, allows a shorter time for them)."""


class UdpPath:
    """Frames that differ only in their payload: what they have in common, and those that wait to be sent."""

    __slots__ = ("flow", "length", "limit", "place", "size", "start", "sum", "waiting")

    def __init__(
        self, flow: UdpFlow, place: tuple[bytes, int, int, int], frame: bytes, start: int, limit: int
    ) -> None:
        self.flow = flow
        self.place = place
        """Destination, port, hop limit, traffic class: the header of a run."""
        self.length = len(frame)
        self.start = start
        """The number of bytes before the payload."""
        self.size = len(frame) - start
        """The size of each payload in bytes."""
        self.limit = limit
        """The most datagrams in one run."""
        self.sum = 0 if start == MIN_V6 else header_sum(frame)
        self.waiting: list[bytes] = []

    def fits(self, frame: bytes) -> bool:
        """Return whether ``frame``, which has the key of this path, is as valid as the path's first frame."""
        if len(frame) != self.length:
            return False
        if self.start == MIN_V6:
            return True
        return header_sum(frame) == self.sum


class UdpFlow(DatagramFlow):
    """The flow of one local address and port."""

    __slots__ = ("_full_idle_timeout", "_give_way", "_headers", "_open_runs", "_path", "_segments", "_unread")

    label = "udp"

    def __init__(
        self,
        context: FlowContext,
        local: bytes,
        port: int,
        idle_timeout: float,
        on_closed: Callable[[DatagramFlow], None],
        now: float,
    ) -> None:
        super().__init__(context, local, port, min(idle_timeout, DNS_IDLE), on_closed, now)
        self._full_idle_timeout = idle_timeout
        self._segments = context.segments
        self._give_way = context.give_way
        self._unread = 0
        self._headers: dict[tuple[bytes, int, int, int, int], bytes] = {}
        self._open_runs = context.open_runs
        self._path: UdpPath | None = None
        """The path of the datagrams that wait for the end of the batch."""

    def path_of(self, packet: ip.IpPacket, datagram: udp.UdpDatagram, frame: bytes) -> UdpPath | None:
        """Return a path for frames like this one, parsed as ``packet`` and ``datagram``; None if unfit."""
        size = len(datagram.payload)
        start = MIN_V4 if packet.version == 4 else MIN_V6
        if len(frame) != start + size or size > MAX_RUN_DATA:
            return None
        place = (packet.destination, datagram.destination_port, packet.hop_limit, packet.traffic_class)
        limit = min(MAX_RUN_DATA // size, MAX_RUN_SEGMENTS) if size else 1
        return UdpPath(self, place, frame, start, limit)

    def frame_arrived(self, path: UdpPath, frame: bytes, now: float) -> None:
        """Take one more datagram of the host on ``path``. :meth:`flush` sends it."""
        self._last_used = now
        if self._path is not path:
            if self._path is not None:
                self.flush()  # keeps the order within the flow
            self._path = path
            self._open_runs.append(self)
        waiting = path.waiting
        waiting.append(frame)
        if len(waiting) >= path.limit:
            self.flush()

    def flush(self) -> None:
        """Send the waiting datagrams as one run."""
        path = self._path
        if path is None:
            return
        self._path = None
        frames, path.waiting = path.waiting, []
        count, start = len(frames), path.start
        key = (*path.place, path.size if count > 1 else 0)
        header = self._headers.get(key)
        if header is None:
            try:
                header = self._remember(key)
            except WireError as error:  # a name that the wire cannot carry
                self._counters.drop(error.reason, count)
                return
        data = frames[0][start:] if count == 1 else b"".join([frame[start:] for frame in frames])
        self.stream.send(header, data)
        if self.stream.has_enough:
            self._give_way()  # the stream can take no more until others have had a turn

    def _end(self) -> None:
        if self._path is not None:  # datagrams were waiting when the stream ended
            self._counters.drop("udp-stream-closed", len(self._path.waiting))
            self._path.waiting = []
            self._path = None
        super()._end()

    def datagram_arrived(
        self, packet: ip.IpPacket, port: int, payload: memoryview, segment_size: int, now: float
    ) -> None:
        """Send one datagram of the host to ``port``, or several of ``segment_size`` bytes each."""
        self._last_used = now
        self.flush()
        key = (packet.destination, port, packet.hop_limit, packet.traffic_class, segment_size)
        header = self._headers.get(key)
        if header is None:
            header = self._remember(key)
        length = len(payload)
        if not segment_size:
            if length <= MAX_RUN_DATA:
                self.stream.send(header, payload)
            else:
                self._send(packet, header, payload)
            return
        step = segment_size * min(max(MAX_RUN_DATA // segment_size, 1), MAX_RUN_SEGMENTS)
        for start in range(0, length, step):
            self.stream.send(header, payload[start : start + step])

    def _remember(self, key: tuple[bytes, int, int, int, int]) -> bytes:
        destination, port, hop_limit, traffic_class, segment_size = key
        self._sends_to(destination)
        if port != DNS_PORT:
            self._idle_timeout = self._full_idle_timeout
        header = encode_run_header(
            self._dns.name_of(destination) or destination,
            port,
            hop_limit=hop_limit,
            traffic_class=traffic_class,
            segment_size=segment_size,
        )
        if len(self._headers) >= MAX_RUN_HEADERS:
            self._headers.clear()
        self._headers[key] = header
        return header

    def _deliver(self, source: bytes, run: DataRun) -> None:
        size, data = run.segment_size, run.data
        length = len(data)
        if not size or self._segments:
            self._write_datagrams(source, run.port, data, size)
        else:
            for start in range(0, length, size):
                self._write_datagrams(source, run.port, data[start : start + size], 0)
        self._unread += length + SOCKET_COST * (length // size if size else 1)
        if self._unread >= READER_SHARE:
            self._unread = 0
            self._give_way()

    def _write_datagrams(self, source: bytes, port: int, data: Buffer, segment_size: int) -> None:
        header = udp.build(source, port, self._local, self._number, len(data), segment_size=segment_size)
        self._write((header, data))

    def _quote(self, port: int) -> tuple[int, bytes]:
        return ip.PROTOCOL_UDP, _HEADER.pack(self._number, port, _HEADER.size, 0)
