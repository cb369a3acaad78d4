"""Everything that a peer sends: packets, trains, records, handshakes, joins, payloads."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from dataclasses import replace

from fuzz_targets.script import Script
from halftunnel_vpn.cli.invited import profile_of
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.errors import ConfigError, HandshakeError, RecordError, WireError
from halftunnel_vpn.protocol import wire
from halftunnel_vpn.protocol.datagram import DataRun, decode_run, encode_error, encode_run_header
from halftunnel_vpn.protocol.handshake import ClientHandshake, ReplayGuard, receive_hello
from halftunnel_vpn.protocol.handshake_payloads import ClientHello, ExitHello, ExitStatus
from halftunnel_vpn.protocol.invitation import SCHEME, decode_link, encode_link
from halftunnel_vpn.protocol.join import (
    JOIN_WINDOW,
    LabelWindow,
    decode_token_join,
    label,
    verify_join,
    verify_join_reply,
)
from halftunnel_vpn.protocol.keys import Direction, KeyPair, SessionKeys
from halftunnel_vpn.protocol.noise import HandshakeState
from halftunnel_vpn.protocol.records import MAX_TRAIN, Opener, Sealer
from halftunnel_vpn.protocol.shaping_terms import ShapingTerms
from halftunnel_vpn.protocol.stream_messages import (
    Keepalive,
    OpenReply,
    OpenRequest,
    decode_credit,
    decode_reset,
    encode_credit,
)
from halftunnel_vpn.protocol.wire import PacketType, as_uuid4, encode_authenticated, encode_header

KEY = bytes(range(32))
SESSION_ID = as_uuid4(bytes(range(16)))
NONCE = bytes(range(16))
CLIENT_KEYS, EXIT_KEYS = KeyPair(b"\x11" * 32), KeyPair(b"\x22" * 32)
CLIENT_EPHEMERAL, EXIT_EPHEMERAL = b"\x33" * 32, b"\x44" * 32
SESSION_KEYS = SessionKeys(KEY)
WALL_TIME = 1_800_000_000_000_000
CLIENT_HELLO = ClientHello(SESSION_ID, as_uuid4(NONCE), WALL_TIME, NONCE)
EXIT_HELLO = ExitHello(ExitStatus.OK, WALL_TIME, NONCE, max_streams=100, stream_window=65536)


def client_handshake() -> ClientHandshake:
    """The same one every time: its message 1 is in the corpus, and so is the answer to it."""
    return ClientHandshake(
        CLIENT_KEYS, EXIT_KEYS.public, CLIENT_HELLO, CLIENT_EPHEMERAL, packet_id=NONCE, padding=7
    )


def _encoded(packet: wire.Packet, flags: int = 0) -> bytes:
    fields = (packet.stream_id, packet.sequence, packet.acknowledgement, len(packet.payload))
    return encode_header(packet.type | flags, packet.session_id, *fields) + packet.payload


def wire_packet(data: bytes) -> None:
    """One packet; what is read must encode to the same bytes."""
    with suppress(WireError):
        assert _encoded(wire.decode(data)) == data
    with suppress(WireError):
        packet = wire.peek(data)
        assert len(data) <= wire.MAX_FIRST_MESSAGE
        flags = data[3] & wire.FLAG_HMAC
        assert _encoded(packet, flags) == (data[: -wire.HMAC_LENGTH] if flags else data)
    with suppress(WireError):
        packet = wire.decode_authenticated(data, KEY)
        fields = (packet.stream_id, packet.sequence, packet.acknowledgement)
        assert encode_authenticated(packet.type, packet.session_id, *fields, packet.payload, KEY) == data


def wire_train(data: bytes) -> None:
    """A train; its packets end to end are the train."""
    with suppress(WireError):
        packets = wire.iter_train(data, SESSION_ID)
        assert packets
        assert b"".join(map(_encoded, packets)) == data


def records(data: bytes) -> None:
    """Records in a row: the script seals trains, and damages some of them."""
    script = Script(data)
    sealer, opener = Sealer(KEY), Opener(KEY)
    while script:
        action = script.number()
        if action & 1:
            record = script.piece()
            with suppress(RecordError):
                opener.open(record)
                raise AssertionError("a record that nobody sealed")
            continue
        train = script.piece()[:MAX_TRAIN]
        record = sealer.seal((train,))
        if action & 2:
            damaged = bytearray(record)
            damaged[script.number(2) % len(record)] ^= script.number() or 1
            with suppress(RecordError):
                opener.open(damaged)
                raise AssertionError("a damaged record")
        assert opener.open(record) == train
    assert opener.records == sealer.records


def handshake_at_exit(data: bytes) -> None:
    """Message 1 from a stranger."""
    with suppress(HandshakeError):
        offer = receive_hello(data, EXIT_KEYS)
        hello = offer.open()
        assert offer.client_public == CLIENT_KEYS.public  # nobody else's private key is in here
        ReplayGuard().check(offer.client_public, hello.timestamp, WALL_TIME)
        offer.answer(EXIT_HELLO, EXIT_EPHEMERAL)


def handshake_at_client(data: bytes) -> None:
    """Message 2 from a road."""
    handshake = client_handshake()
    with suppress(HandshakeError):
        handshake.finish(data)


def handshake_of_a_client(data: bytes) -> None:
    """What a client that is on the list may say inside the encryption."""
    if len(data) > wire.MAX_FIRST_MESSAGE - 200:
        return
    header = encode_header(PacketType.HANDSHAKE, SESSION_ID, 0, 0, 0, 32 + 48 + 16 + len(data))
    noise = HandshakeState(s=CLIENT_KEYS, prologue=b"Half-Tunnel 1" + header, rs=EXIT_KEYS.public)
    offer = receive_hello(header + noise.write_first(data, KeyPair(CLIENT_EPHEMERAL)), EXIT_KEYS)
    assert offer.client_public == CLIENT_KEYS.public
    with suppress(HandshakeError):
        hello = offer.open()
        guard = ReplayGuard()
        guard.check(offer.client_public, hello.timestamp, WALL_TIME)
        guard.load(guard.export())
        offer.answer(EXIT_HELLO, EXIT_EPHEMERAL)


def hellos(data: bytes) -> None:
    """Both hellos; the fixed fields of what is read must encode to the same bytes."""
    with suppress(HandshakeError):
        client_hello = ClientHello.decode(data)
        assert data.startswith(replace(client_hello, shaping=None).encode()[:-4])
        if client_hello.shaping is not None:
            assert ShapingTerms.decode(client_hello.shaping.encode()) == client_hello.shaping
    with suppress(HandshakeError):
        exit_hello = ExitHello.decode(data)
        plain = replace(exit_hello, shaping=None, last_timestamp=0)
        assert data.startswith(plain.encode()[:-5])  # flags may be unknown ones


def join_of_a_stranger(data: bytes) -> None:
    """The first message of a leg, as it comes."""
    with suppress(HandshakeError):
        assert decode_token_join(data) == data[4:20]
    for direction in Direction:
        with suppress(HandshakeError):
            verify_join(data, SESSION_KEYS, direction, 1)
        with suppress(HandshakeError):
            verify_join_reply(data, SESSION_KEYS, direction, 1, NONCE)


def join_of_a_client(data: bytes) -> None:
    """A join whose HMAC is right, and the window of leg numbers; two bytes make each number."""
    script = Script(data)
    window = LabelWindow(SESSION_KEYS, Direction.UPSTREAM)
    known = window.labels()
    used = set()
    for _ in range(script.number() % 8):
        number = script.number(2) if script.number() & 1 else max(used, default=0) + script.number()
        with suppress(HandshakeError):
            removed, added = window.use(number)
            assert number not in used
            used.add(number)
            for name in removed:
                del known[name]
            known |= added
        assert known == window.labels()
        assert len(known) <= 2 * JOIN_WINDOW
    numbers = script.number(), script.number(), script.number()
    name = label(SESSION_KEYS, Direction.UPSTREAM, 1) if script.number() & 1 else script.take(16).ljust(16)
    type_ = PacketType.RECONNECT if script.number() & 1 else PacketType.HANDSHAKE
    key = SESSION_KEYS.join_key(Direction.UPSTREAM)
    payload = script.rest()
    packet = encode_authenticated(type_, name, *numbers, payload, key)
    with suppress(HandshakeError):
        assert verify_join(packet, SESSION_KEYS, Direction.UPSTREAM, 1) == payload[:16]


def opening(data: bytes) -> None:
    """Payloads of OPEN, ACK, RESET and KEEPALIVE; what is read must encode to the same bytes."""
    with suppress(WireError):
        assert OpenRequest.decode(data).encode() == data
    with suppress(WireError):
        assert OpenReply.decode(data).encode() == data
    with suppress(WireError):
        assert data.startswith(Keepalive.decode(data).encode())
    with suppress(WireError):
        assert encode_credit(decode_credit(data)) == data
    with suppress(WireError):
        decode_reset(data)


def datagram_run(data: bytes) -> None:
    """A run; what is read must encode to the same bytes."""
    with suppress(WireError):
        run = decode_run(memoryview(data))
        if isinstance(run, DataRun):
            address, port, hop_limit, traffic_class, segment_size, payload = run
            header = encode_run_header(
                address, port, hop_limit=hop_limit, traffic_class=traffic_class, segment_size=segment_size
            )
            assert header + payload == data
        else:
            assert encode_error(run) == data


def invitation_link(data: bytes) -> None:
    """A link as it is pasted, and a body with a good check sum; what is read encodes to a link again."""
    body = data[:200]
    checked = body + hashlib.sha256(body).digest()[:4]
    texts = data.decode("utf-8", "replace"), SCHEME + base64.urlsafe_b64encode(checked).decode().rstrip("=")
    for text in texts:
        with suppress(ConfigError):
            found = decode_link(text)
            assert len(found.exit_public) == 32 and len(found.secret) == 16
            parse_client(profile_of(found, KeyPair(bytes(range(32)))))
            with suppress(ConfigError):  # it may be longer than it has to be
                assert decode_link(encode_link(found)) == found
