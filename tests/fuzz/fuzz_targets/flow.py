"""The flow tracker between a host that sends anything it likes and streams that answer anything.

An input is a script: frames, well-formed or not, between what the exit answers on the streams and the clock.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from fuzz_targets.packet import HOST, HOST_V6, SERVER, SERVER_V6, fragment_of, with_checksum
from fuzz_targets.script import Script
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import SessionError
from halftunnel_vpn.flow.flow_config import FlowConfig
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.interfaces import Buffer, DatagramHandler, DnsOutcome, StreamHandler
from halftunnel_vpn.flow.tracker import FlowTracker
from halftunnel_vpn.inet import ip, tcp, vnet
from halftunnel_vpn.inet.checksum import internet_checksum
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode
from halftunnel_vpn.timers import Wheel

HOST_ISN = 0xFFFF_FFF0
MAX_STEPS = 400
MAX_FLOWS = 8
FAKE = b"\xc6\x12\x00\x01"
NAME = "www.example"
ROOM = 32 * 1024
ADDRESSES = (
    (HOST, SERVER),
    (HOST_V6, SERVER_V6),
    (HOST, FAKE),
    (b"\x0a\x00\x00\x63", SERVER),  # behind the host, so with congestion control
    (HOST, b"\xe0\x00\x00\x01"),
    (HOST, HOST),
    (HOST_V6, b"\xff\x02" + bytes(13) + b"\x01"),
    (HOST, b"\xff\xff\xff\xff"),
)
PORTS = (80, 53, 443, 0)
MAX_FRAME = vnet.VNET_HEADER_LENGTH + ip.MAX_PACKET


class _Stream:
    """The exit's half of a byte stream, and what the endpoint has done with its own."""

    def __init__(self, handler: StreamHandler) -> None:
        self.handler = handler
        self.used = 0
        self.owed = 0
        self.is_open = False
        self.is_over = False
        self.is_finished = False
        self.has_finished = False

    @property
    def room(self) -> int:
        return ROOM - self.used

    def send(self, data: Buffer, now: float) -> None:
        assert not self.is_over and not self.is_finished
        self.used += len(data)
        assert self.used <= ROOM

    def finish(self) -> None:
        assert not self.is_finished
        self.is_finished = True

    def reset(self, code: ResetCode) -> None:
        self.is_over = True

    fin_follows = False
    offender = b""

    def consumed(self, count: int, now: float) -> None:
        self.owed -= count
        assert self.owed >= 0


class _Datagrams:
    """The same for a datagram stream."""

    has_enough = False

    def __init__(self, handler: DatagramHandler) -> None:
        self.handler = handler
        self.is_over = False

    def send(self, *parts: Buffer) -> None:
        assert not self.is_over
        assert sum(map(len, parts)) <= 65486

    def close(self) -> None:
        self.is_over = True


class _Dns:
    """A resolver that answers at once, or later for a message of odd length."""

    def __init__(self) -> None:
        self.late: list[Callable[[bytes], None]] = []

    def query(
        self,
        message: bytes,
        reply: Callable[[bytes], None],
        *,
        stream: bool,
        client: bytes,
        names_server: bool,
    ) -> DnsOutcome:
        if names_server and message[:1] == b"s":
            return DnsOutcome.FOR_SERVER
        if len(message) & 1:
            self.late.append(reply)
        elif message:
            reply(message)
        return DnsOutcome.ANSWERED if message else DnsOutcome.IGNORED

    def name_of(self, address: bytes) -> str | None:
        return NAME if address == FAKE else None

    def address_of(self, name: str, version: int) -> bytes | None:
        return FAKE if name == NAME and version == 4 else None


class Harness:
    """A tracker with its host, its streams and its clock. Implements StreamOpener."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.now = 100.0
        self.wheel = Wheel()
        self.streams: list[_Stream] = []
        self.datagrams: list[_Datagrams] = []
        self.is_offline = False
        self.server_next = 0
        self.dns = _Dns()
        self.tracker = FlowTracker(
            FlowContext(
                write=self._write,
                segments=bool(script.number() & 1),
                dns=self.dns,
                wheel=self.wheel,
                counters=Counters(),
                clock=lambda: self.now,
                random=bytes,
            ),
            self,
            FlowConfig(
                addresses=(HOST, HOST_V6),
                max_tcp_flows=MAX_FLOWS,
                max_udp_flows=MAX_FLOWS,
                max_icmp_flows=MAX_FLOWS,
            ),
        )

    # --- what the tracker calls ------------------------------------------------------------------

    def open_stream(self, request: OpenRequest, handler: StreamHandler, now: float) -> _Stream:
        request.encode()
        self._refuse_when_offline()
        self.streams.append(_Stream(handler))
        return self.streams[-1]

    def open_datagrams(self, request: OpenRequest, handler: DatagramHandler, now: float) -> _Datagrams:
        request.encode()
        self._refuse_when_offline()
        self.datagrams.append(_Datagrams(handler))
        return self.datagrams[-1]

    def _refuse_when_offline(self) -> None:
        if self.is_offline:
            raise SessionError("offline")

    def _write(self, parts: Sequence[Buffer]) -> None:
        frame = b"".join(parts)
        assert len(frame) <= MAX_FRAME
        header = vnet.parse(frame)
        assert header.csum_start + header.csum_offset + 2 * header.flags <= len(frame)
        packet = frame[vnet.VNET_HEADER_LENGTH :]
        if packet[0] == 0x45:
            assert internet_checksum(packet[:20]) == 0
            assert int.from_bytes(packet[2:4], "big") == len(packet)
            if packet[9] == ip.PROTOCOL_TCP:
                self._note_sequence(packet[20:])
        else:
            assert packet[0] >> 4 == 6 and int.from_bytes(packet[4:6], "big") == len(packet) - 40
            if packet[6] == ip.PROTOCOL_TCP:
                self._note_sequence(packet[40:])

    def _note_sequence(self, segment: bytes) -> None:
        """What the host would acknowledge next."""
        sequence = int.from_bytes(segment[4:8], "big")
        length = len(segment) - (segment[12] >> 4 << 2)
        self.server_next = (sequence + length + bool(segment[13] & (tcp.SYN | tcp.FIN))) & tcp.SEQUENCE_MASK

    # --- one step of the script ------------------------------------------------------------------

    def step(self) -> None:
        action = self.script.number()
        if action < 0x20:
            self._arrive(self.script.piece())
        elif action < 0x28:
            frame = self.script.piece()
            self._arrive(frame[:10].ljust(10, b"\0") + with_checksum(frame[10:]))
        elif action < 0x80:
            self._arrive(self._tcp(action))
        elif action < 0x90:
            self._arrive(self._udp(action))
        elif action < 0x98:
            self._arrive(self._icmp(action))
        elif action < 0xA0:
            self._arrive(self._fragment(action))
        elif action < 0xD0:
            self._answer(action)
        elif action < 0xE0:
            self._answer_datagrams(action)
        elif action < 0xE4:
            self.is_offline = bool(action & 1)
        elif action == 0xE4:
            self._lose_session()
        elif action < 0xE8:
            if self.dns.late:
                self.dns.late.pop(0)(bytes(self.script.number(2) % 65_000))
        elif action < 0xF0:
            self.tracker.flush(self.now)
        else:
            self._wait((action & 15) ** 2 / 50)
        counts = self.tracker.counts
        assert max(counts.tcp, counts.udp, counts.icmp) <= MAX_FLOWS

    def _arrive(self, frame: bytes) -> None:
        self.tracker.frame_arrived(frame, self.now)

    def _ip(self, addresses: tuple[bytes, bytes], protocol: int, payload: bytes, gso_type: int = 0) -> bytes:
        """A frame whose transport checksum is believed."""
        gso_size = 1000 if gso_type else 0
        header = vnet.VnetHeader(vnet.NEEDS_CSUM, gso_type, 0, gso_size, 0, 0).encode()
        return header + ip.build(*addresses, protocol, len(payload)) + payload

    def _tcp(self, action: int) -> bytes:
        """A segment near what an earlier one makes sensible; the last bits of ``action`` choose its flags."""
        script = self.script
        first = script.number()
        usual = (tcp.SYN, tcp.ACK, tcp.ACK | tcp.PSH, tcp.FIN | tcp.ACK, tcp.RST, tcp.RST | tcp.ACK)
        choice = action & 7
        flags = usual[choice] if choice < len(usual) else script.number()
        base = HOST_ISN if flags & tcp.SYN else HOST_ISN + 1
        sequence = (base + (script.number(2) if first & 0x08 else 0)) & tcp.SEQUENCE_MASK
        if first & 0x10:
            sequence = script.near(sequence)
        acknowledgement = script.near(self.server_next) if first & 0x20 else self.server_next
        options = script.take(script.number() % 41) if first & 0x40 else b""
        options += bytes(-len(options) % 4)
        payload = bytes(script.number(2) % 50_000) if first & 0x80 else b""
        offset = (20 + len(options)) << 2
        place = (PORTS[first >> 1 & 3], sequence, acknowledgement, offset, flags, script.number(2), 0, 0)
        segment = struct.pack(">HHIIBBHHH", 40000 + (action >> 3 & 3), *place) + options + payload
        return self._ip(ADDRESSES[first & 1 if action < 0x70 else first & 7], ip.PROTOCOL_TCP, segment)

    def _udp(self, action: int) -> bytes:
        script = self.script
        first = script.number()
        payload = script.take(first) if action & 1 else bytes(script.number(2) % 65_000)
        ports = 50000 + (first & 15), PORTS[first >> 4 & 3]
        segment = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
        gso_type = vnet.GSO_UDP_L4 if action & 2 else 0
        return self._ip(ADDRESSES[action >> 2 & 3], ip.PROTOCOL_UDP, segment, gso_type)

    def _icmp(self, action: int) -> bytes:
        script = self.script
        addresses = ADDRESSES[action & 7]
        is_v6 = len(addresses[0]) == 16
        kind = script.number() if action & 4 else 128 if is_v6 else 8
        message = struct.pack(">BBHHH", kind, 0, 0, script.number(), script.number())
        message += bytes(script.number(2) % 65_000)
        return self._ip(addresses, ip.PROTOCOL_ICMPV6 if is_v6 else ip.PROTOCOL_ICMP, message)

    def _fragment(self, action: int) -> bytes:
        script = self.script
        payload = struct.pack(">HHHH", 50000, 80, script.number(2), 0) + bytes(8 * script.number())
        return vnet.PLAIN + fragment_of(
            bool(action & 1), 1 + script.number(), script.number(2), bool(action & 2), payload
        )

    def _answer(self, action: int) -> None:
        """The exit says something on one stream, as far as a session would let it."""
        living = [stream for stream in self.streams if not stream.is_over]
        if not living:
            return
        stream = living[self.script.number() % len(living)]
        handler, choice = stream.handler, action & 7
        if not stream.is_open:
            if choice < 5:
                stream.is_open = True
                handler.opened(self.now)
            else:
                stream.is_over = True
                handler.refused(ResetCode(self.script.number() % len(ResetCode)), self.now)
        elif choice < 4 and not stream.has_finished:
            data = memoryview(bytes(self.script.number(2) or 1))
            stream.owed += len(data)
            handler.data_received(data, self.now)
        elif choice == 4 and not stream.has_finished:
            stream.has_finished = True
            handler.finished(self.now)
        elif choice == 5:
            stream.is_over = True
            handler.aborted(ResetCode.CONNECTION_RESET, self.now)
        elif stream.used and not stream.is_finished:
            stream.used = 0
            handler.room_grew(self.now)

    def _answer_datagrams(self, action: int) -> None:
        living = [stream for stream in self.datagrams if not stream.is_over]
        if not living:
            return
        stream = living[self.script.number() % len(living)]
        if action & 7 == 7:
            stream.is_over = True
            stream.handler.aborted(ResetCode.SHUTDOWN, self.now)
        elif action & 7 == 6:
            stream.is_over = True
            stream.handler.refused(ResetCode.LIMIT, self.now)
        else:
            stream.handler.run_received(memoryview(self.script.piece()), self.now)

    def _lose_session(self) -> None:
        """As a session does that is over: every stream first, the tracker for the rest."""
        for stream in (*self.streams, *self.datagrams):
            if not stream.is_over:
                stream.is_over = True
                stream.handler.aborted(ResetCode.SHUTDOWN, self.now)
        self.tracker.session_lost(self.now)
        self.streams.clear()
        self.datagrams.clear()

    def _wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.wheel.next_deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.wheel.run(self.now)
        self.now = end

    def run(self) -> None:
        for _ in range(MAX_STEPS):
            if not self.script:
                break
            self.step()
        self.tracker.flush(self.now)
        self._lose_session()
        counts = self.tracker.counts
        assert counts.tcp == counts.udp == counts.icmp == 0
        self._wait(1000.0)
        assert self.wheel.next_deadline is None


def flow_frames(data: bytes) -> None:
    """Frames, streams and time as the script has them."""
    Harness(Script(data)).run()


def flow_frame(data: bytes) -> None:
    """One arbitrary frame, as it is and with its IP checksum put right."""
    for frame in (data, data[:10] + with_checksum(data[10:])):
        harness = Harness(Script(b""))
        harness.tracker.frame_arrived(frame, harness.now)
        harness.run()
