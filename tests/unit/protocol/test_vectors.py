"""The vectors in docs/vectors: that they are what the code makes, and that other code understands them.

To write them again after a change of the protocol, run this file from the root of the repository:
``PYTHONPATH=. python tests/unit/protocol/test_vectors.py``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from halftunnel_vpn.errors import PeerError
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.protocol import datagram, join, stream_messages, wire
from halftunnel_vpn.protocol.datagram import ErrorRun
from halftunnel_vpn.protocol.handshake import (
    ClientHandshake,
    ClientHello,
    ExitHello,
    ExitStatus,
    receive_hello,
)
from halftunnel_vpn.protocol.keys import Direction, KeyPair, SessionKeys
from halftunnel_vpn.protocol.records import Opener, Sealer
from halftunnel_vpn.protocol.shaping_terms import TAKES_PADDING, ShapingMode, ShapingTerms
from halftunnel_vpn.protocol.stream_messages import (
    Keepalive,
    KeepaliveKind,
    OpenReply,
    OpenRequest,
    ResetCode,
    StreamKind,
)
from halftunnel_vpn.protocol.wire import PacketType, as_uuid4

DIRECTORY = Path(__file__).parents[3] / "docs" / "vectors"

SESSION_ID = as_uuid4(bytes(range(0x10, 0x20)))
JOIN_TOKEN = as_uuid4(bytes(range(0x20, 0x30)))
PACKET_ID = as_uuid4(bytes(range(0x30, 0x40)))
CLIENT_NONCE = bytes(range(0x40, 0x50))
EXIT_NONCE = bytes(range(0x50, 0x60))
RECORD_KEY = bytes(range(0x60, 0x80))
SESSION_SECRET = bytes(range(0x80, 0xA0))
TIMESTAMP = 1_767_225_600_000_000
DESTINATION = bytes([198, 51, 100, 7])
DESTINATION_6 = bytes.fromhex("20010db8000000000000000000000007")

REFUSING = (
    ExitStatus.DISABLED,
    ExitStatus.EXPIRED,
    ExitStatus.QUOTA_USED_UP,
    ExitStatus.INVITATION_USED,
    ExitStatus.INVITATION_EXPIRED,
)

Vectors = dict[str, Any]


# --- making them ----------------------------------------------------------------------------------


def make_packets() -> Vectors:
    plain = [
        (PacketType.DATA, 5, 1, 1, b"GET / HTTP/1.1\r\n\r\n"),
        (PacketType.ACK, 5, 0, 0xFFFFFFFF, stream_messages.encode_credit(262144)),
        (PacketType.FIN, 5, 2, 3, b""),
        (PacketType.KEEPALIVE, 0, 0, 0, Keepalive(KeepaliveKind.PING, 1, 2, 3).encode(b"pad")),
        (PacketType.OPEN, 7, 0, 0, OpenRequest(StreamKind.DNS, b"", 0, 65536).encode()),
        (PacketType.RESET, 5, 0xFFFFFFFF, 3, stream_messages.encode_reset(ResetCode.REFUSED)),
        (PacketType.PADDING, 0, 0, 0, bytes(16)),
    ]
    packets = [
        {
            "type": kind.name,
            "session_id": SESSION_ID.hex(),
            "stream_id": stream_id,
            "sequence": sequence,
            "acknowledgement": acknowledgement,
            "payload": payload.hex(),
            "packet": (
                wire.encode_header(kind, SESSION_ID, stream_id, sequence, acknowledgement, len(payload))
                + payload
            ).hex(),
        }
        for kind, stream_id, sequence, acknowledgement, payload in plain
    ]
    good = bytes.fromhex(str(packets[0]["packet"]))
    handshake = wire.encode_header(PacketType.HANDSHAKE, SESSION_ID, 0, 0, 0, 0)
    refused = {
        "wire-bad-magic": b"ht" + good[2:],
        "wire-bad-version": good[:2] + b"\x02" + good[3:],
        "wire-bad-flags": good[:3] + b"\x41" + good[4:],
        "wire-unexpected-type": good + handshake,
        "wire-wrong-session": good[:4] + JOIN_TOKEN + good[20:],
        "wire-truncated": good + good[:-1],
    }
    return {
        "packets": packets,
        "train": "".join(str(packet["packet"]) for packet in packets),
        "refused_trains": [{"reason": reason, "train": bad.hex()} for reason, bad in refused.items()],
    }


def make_payloads() -> Vectors:
    def host(value: bytes | str) -> str:
        return value if isinstance(value, str) else value.hex()

    requests = [
        OpenRequest(StreamKind.TCP, DESTINATION, 443, 65536),
        OpenRequest(StreamKind.TCP, DESTINATION_6, 443, 65536),
        OpenRequest(StreamKind.TCP, "www.example", 80, 262144),
        OpenRequest(StreamKind.TCP, DESTINATION, 80, 262144, 3),
        OpenRequest(StreamKind.UDP, b"", 0, 0),
        OpenRequest(StreamKind.ICMP, b"", 0, 0),
        OpenRequest(StreamKind.DNS, b"", 0, 65536),
    ]
    replies = [OpenReply(262144, DESTINATION, 40000), OpenReply(0), OpenReply(1, DESTINATION_6, 40000)]
    keepalives = [
        Keepalive(KeepaliveKind.PING, 7, 123456789, 42, 8.0),
        Keepalive(KeepaliveKind.PONG, 7, 123456789, 9),
        Keepalive(KeepaliveKind.RETIRE, 3, 30_000_000, 17),
    ]
    return {
        "open_requests": [
            {
                "kind": request.kind.name,
                "host": host(request.host),
                "host_is_name": isinstance(request.host, str),
                "port": request.port,
                "window": request.window,
                "hop_limit": request.hop_limit,
                "payload": request.encode().hex(),
            }
            for request in requests
        ],
        "open_replies": [
            {
                "window": reply.window,
                "address": reply.address.hex(),
                "port": reply.port,
                "payload": reply.encode().hex(),
            }
            for reply in replies
        ],
        "resets": [
            {"code": code.name, "payload": stream_messages.encode_reset(code).hex()} for code in ResetCode
        ],
        "credits": [
            {"limit": limit, "payload": stream_messages.encode_credit(limit).hex()}
            for limit in (0, 262144, 1 << 40)
        ],
        "keepalives": [
            {
                "kind": keepalive.kind.name,
                "id": keepalive.id,
                "sent_us": keepalive.sent_us,
                "records_received": keepalive.records_received,
                "interval_tenths": round(keepalive.interval * 10),
                "padding": "00ff",
                "payload": keepalive.encode(b"\x00\xff").hex(),
            }
            for keepalive in keepalives
        ],
        "refused_open_requests": [
            {"reason": "open-bad-kind", "payload": "0904005000000001" + "c6336407"},
            {"reason": "open-bad-family", "payload": "0105005000000001" + "c6336407"},
            {"reason": "open-truncated", "payload": "0104005000000001" + "c63364"},
            {"reason": "open-trailing-bytes", "payload": "0104005000000001" + "c633640700"},
            {"reason": "open-no-destination", "payload": "0100005000000001"},
            {"reason": "open-bad-name", "payload": "0103005000000001" + "05" + b"127.1".hex()},
        ],
    }


def make_runs() -> Vectors:
    data_runs = [
        (DESTINATION, 3478, 64, 0, 0, b"one datagram"),
        (DESTINATION_6, 443, 0, 0xB8, 4, b"aaaabbbbcc"),
        ("stun.example", 3478, 1, 0, 0, b""),
    ]
    errors = [
        ErrorRun(IcmpErrorKind.TIME_EXCEEDED, bytes([192, 0, 2, 1]), DESTINATION, 33434),
        ErrorRun(IcmpErrorKind.PACKET_TOO_BIG, DESTINATION_6, DESTINATION_6, 443, 1280),
        ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, b"", "stun.example", 3478),
    ]

    def host(value: bytes | str) -> str:
        return value if isinstance(value, str) else value.hex()

    return {
        "data_runs": [
            {
                "address": host(address),
                "port": port,
                "hop_limit": hop_limit,
                "traffic_class": traffic_class,
                "segment_size": segment_size,
                "data": data.hex(),
                "payload": (
                    datagram.encode_run_header(
                        address,
                        port,
                        hop_limit=hop_limit,
                        traffic_class=traffic_class,
                        segment_size=segment_size,
                    )
                    + data
                ).hex(),
            }
            for address, port, hop_limit, traffic_class, segment_size, data in data_runs
        ],
        "error_runs": [
            {
                "error": run.kind.name,
                "offender": run.offender.hex(),
                "address": host(run.address),
                "port": run.port,
                "mtu": run.mtu,
                "payload": datagram.encode_error(run).hex(),
            }
            for run in errors
        ],
        "refused_runs": [
            {"reason": "datagram-bad-run", "payload": "0304400000350000" + "c6336407"},
            {"reason": "datagram-bad-family", "payload": "0100400000350000"},
            {"reason": "datagram-truncated", "payload": "0104400000350000" + "c63364"},
            {"reason": "datagram-bad-segments", "payload": "0104400000350001" + "c6336407" + "00" * 129},
            {"reason": "datagram-bad-error", "payload": "0204090000350000" + "c6336407"},
        ],
    }


def make_key_schedule() -> Vectors:
    k1, k2, handshake_hash = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
    keys = SessionKeys(SESSION_SECRET)
    directions = {}
    for direction in Direction:
        leg = keys.leg_keys(direction, 7, CLIENT_NONCE, EXIT_NONCE)
        directions[direction.name.lower()] = {
            "join_key": keys.join_key(direction).hex(),
            "label_key": keys.label_key(direction).hex(),
            "label_of_7": join.label(keys, direction, 7).hex(),
            "reply_label_of_7": join.reply_label(keys, direction, 7).hex(),
            "leg_7_client_to_exit": leg.client_to_exit.hex(),
            "leg_7_exit_to_client": leg.exit_to_client.hex(),
        }
    return {
        "k1": k1.hex(),
        "k2": k2.hex(),
        "handshake_hash": handshake_hash.hex(),
        "session_secret_of_these": SessionKeys.from_handshake(k1, k2, handshake_hash).secret.hex(),
        "session_secret": SESSION_SECRET.hex(),
        "client_nonce": CLIENT_NONCE.hex(),
        "exit_nonce": EXIT_NONCE.hex(),
        "directions": directions,
    }


def make_handshake() -> Vectors:
    client, exit_keys = KeyPair(bytes([0x11]) * 32), KeyPair(bytes([0x22]) * 32)
    client_ephemeral, exit_ephemeral = bytes([0x33]) * 32, bytes([0x44]) * 32
    hello = ClientHello(SESSION_ID, JOIN_TOKEN, TIMESTAMP, CLIENT_NONCE)
    exit_hello = ExitHello(ExitStatus.OK, TIMESTAMP + 1500, EXIT_NONCE, 4096, 262144, 300, True)
    ours = ClientHandshake(client, exit_keys.public, hello, client_ephemeral, packet_id=PACKET_ID, padding=20)
    offer = receive_hello(ours.message(), exit_keys)
    offer.open()
    reply, keys = offer.answer(exit_hello, exit_ephemeral, padding=30)
    stale = ExitHello(ExitStatus.STALE_TIME, TIMESTAMP, EXIT_NONCE, last_timestamp=TIMESTAMP + 7)
    wish = ShapingTerms(ShapingMode.STRONG, True, 1_600_000, 120, 4 * 2**30)
    asking = ClientHello(SESSION_ID, JOIN_TOKEN, TIMESTAMP, CLIENT_NONCE, TAKES_PADDING, shaping=wish)
    grant = wish.granted(ShapingMode.SPLIT, 1_000_000)
    granting = ExitHello(
        ExitStatus.OK, TIMESTAMP, EXIT_NONCE, 4096, 262144, 300, True, TAKES_PADDING, shaping=grant
    )
    vectors: Vectors = {
        "client_static_private": client.private.hex(),
        "client_static_public": client.public.hex(),
        "exit_static_private": exit_keys.private.hex(),
        "exit_static_public": exit_keys.public.hex(),
        "client_ephemeral_private": client_ephemeral.hex(),
        "exit_ephemeral_private": exit_ephemeral.hex(),
        "client_hello": {
            "version": hello.version,
            "session_id": hello.session_id.hex(),
            "join_token": hello.join_token.hex(),
            "capabilities": hello.capabilities,
            "timestamp": hello.timestamp,
            "nonce": hello.nonce.hex(),
            "padding": 20,
            "payload": hello.encode(20).hex(),
        },
        "message_1": ours.message().hex(),
        "exit_hello": {
            "status": exit_hello.status.name,
            "wall_time": exit_hello.wall_time,
            "nonce": exit_hello.nonce.hex(),
            "capabilities": exit_hello.capabilities,
            "max_streams": exit_hello.max_streams,
            "stream_window": exit_hello.stream_window,
            "idle_timeout": exit_hello.idle_timeout,
            "has_ipv6": exit_hello.has_ipv6,
            "padding": 30,
            "payload": exit_hello.encode(30).hex(),
        },
        "message_2": reply.hex(),
        "stale_time": {
            "status": stale.status.name,
            "wall_time": stale.wall_time,
            "nonce": stale.nonce.hex(),
            "last_timestamp": stale.last_timestamp,
            "padding": 3,
            "payload": stale.encode(3).hex(),
        },
        "refusals": [
            {
                "status": refused.status.name,
                "code": int(refused.status),
                "wall_time": refused.wall_time,
                "nonce": refused.nonce.hex(),
                "padding": 4,
                "payload": refused.encode(4).hex(),
            }
            for refused in (ExitHello(status, TIMESTAMP, EXIT_NONCE) for status in REFUSING)
        ],
        "shaping": [
            {
                "hello": name,
                "capabilities": TAKES_PADDING,
                "mode": terms.mode.name,
                "spreads": terms.spreads,
                "rate": terms.rate,
                "overhead": terms.overhead,
                "budget": terms.budget,
                "item": terms.encode().hex(),
                "padding": 5,
                "payload": payload.hex(),
            }
            for name, terms, payload in (
                ("client", wish, asking.encode(5)),
                ("exit", grant, granting.encode(5)),
            )
        ],
        "session_secret": keys.secret.hex(),
    }
    for direction in Direction:
        leg = keys.leg_keys(direction, 0, CLIENT_NONCE, EXIT_NONCE)
        vectors[f"{direction.name.lower()}_leg_0_client_to_exit"] = leg.client_to_exit.hex()
        vectors[f"{direction.name.lower()}_leg_0_exit_to_client"] = leg.exit_to_client.hex()
    return vectors


def make_join() -> Vectors:
    keys = SessionKeys(SESSION_SECRET)
    joins = []
    for direction, number in (
        (Direction.UPSTREAM, 1),
        (Direction.DOWNSTREAM, 1),
        (Direction.DOWNSTREAM, 300),
    ):
        joins.append(
            {
                "direction": direction.name.lower(),
                "number": number,
                "client_nonce": CLIENT_NONCE.hex(),
                "exit_nonce": EXIT_NONCE.hex(),
                "request_padding": "0102",
                "request": encode_request(keys, direction, number).hex(),
                "reply_padding": "030405",
                "reply": encode_reply(keys, direction, number).hex(),
            }
        )
    return {
        "session_secret": SESSION_SECRET.hex(),
        "joins": joins,
        "token_join": {
            "join_token": JOIN_TOKEN.hex(),
            "padding": "060708",
            "packet": join.encode_token_join(JOIN_TOKEN, b"\6\7\x08").hex(),
        },
    }


def encode_request(keys: SessionKeys, direction: Direction, number: int) -> bytes:
    return join.encode_join(keys, direction, number, CLIENT_NONCE, b"\1\2")


def encode_reply(keys: SessionKeys, direction: Direction, number: int) -> bytes:
    return join.encode_join_reply(keys, direction, number, CLIENT_NONCE, EXIT_NONCE, b"\3\4\5")


def make_records() -> Vectors:
    sealer = Sealer(RECORD_KEY)
    train = bytes.fromhex(make_packets()["train"])
    first = bytes.fromhex(str(make_packets()["packets"][0]["packet"]))
    return {
        "key": RECORD_KEY.hex(),
        "records": [
            {"number": number, "train": plaintext.hex(), "record": sealer.seal([plaintext]).hex()}
            for number, plaintext in enumerate((train, first, first))
        ],
    }


MAKERS: dict[str, Callable[[], Vectors]] = {
    "packets": make_packets,
    "payloads": make_payloads,
    "runs": make_runs,
    "key-schedule": make_key_schedule,
    "handshake": make_handshake,
    "join": make_join,
    "records": make_records,
}


def text_of(name: str) -> str:
    return json.dumps(MAKERS[name](), indent=2) + "\n"


def load(name: str) -> Vectors:
    vectors: Vectors = json.loads((DIRECTORY / f"{name}.json").read_text())
    return vectors


# --- checking them --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_holds_what_the_code_makes(name: str) -> None:
    assert (DIRECTORY / f"{name}.json").read_text() == text_of(name)


def test_there_is_no_other_file() -> None:
    assert {file.name for file in DIRECTORY.iterdir()} == {f"{name}.json" for name in MAKERS}


def test_packets_read_back() -> None:
    vectors = load("packets")
    train = wire.iter_train(bytes.fromhex(vectors["train"]), SESSION_ID)
    for packet, vector in zip(train, vectors["packets"], strict=True):
        assert packet.type.name == vector["type"]
        assert packet.stream_id == vector["stream_id"]
        assert packet.sequence == vector["sequence"]
        assert packet.acknowledgement == vector["acknowledgement"]
        assert packet.payload.hex() == vector["payload"]


def test_payloads_read_back() -> None:
    vectors = load("payloads")
    for vector in vectors["open_requests"]:
        request = OpenRequest.decode(bytes.fromhex(vector["payload"]))
        host = vector["host"] if vector["host_is_name"] else bytes.fromhex(vector["host"])
        rest = vector["port"], vector["window"], vector["hop_limit"]
        assert request == OpenRequest(StreamKind[vector["kind"]], host, *rest)
    for vector in vectors["open_replies"]:
        reply = OpenReply.decode(bytes.fromhex(vector["payload"]))
        assert reply == OpenReply(vector["window"], bytes.fromhex(vector["address"]), vector["port"])
    for vector in vectors["keepalives"]:
        keepalive = Keepalive.decode(bytes.fromhex(vector["payload"]))
        assert (keepalive.kind.name, keepalive.records_received, round(keepalive.interval * 10)) == (
            vector["kind"],
            vector["records_received"],
            vector["interval_tenths"],
        )


@pytest.mark.parametrize(
    ("name", "section", "field", "decode"),
    [
        ("packets", "refused_trains", "train", lambda data: wire.iter_train(data, SESSION_ID)),
        ("payloads", "refused_open_requests", "payload", OpenRequest.decode),
        ("runs", "refused_runs", "payload", datagram.decode_run),
    ],
)
def test_what_must_be_refused_is_refused(
    name: str, section: str, field: str, decode: Callable[[bytes], object]
) -> None:
    for vector in load(name)[section]:
        with pytest.raises(PeerError) as caught:
            decode(bytes.fromhex(vector[field]))
        assert caught.value.reason == vector["reason"]


def test_records_open_and_plain_aes_gcm_opens_them_too() -> None:
    vectors = load("records")
    key = bytes.fromhex(vectors["key"])
    opener = Opener(key)
    for vector in vectors["records"]:
        record, train = bytes.fromhex(vector["record"]), bytes.fromhex(vector["train"])
        assert opener.open(record) == train
        nonce = struct.pack(">IQ", 0, vector["number"])
        assert AESGCM(key).decrypt(nonce, record, b"") == train


def test_a_second_implementation_from_the_specification_alone_reaches_the_same_session() -> None:
    """The exit's side of the handshake, written down here step by step without any code of ours."""
    vectors = {name: value for name, value in load("handshake").items()}

    def hex_of(name: str) -> bytes:
        return bytes.fromhex(vectors[name])

    def dh(private: str, public: bytes) -> bytes:
        return X25519PrivateKey.from_private_bytes(hex_of(private)).exchange(
            X25519PublicKey.from_public_bytes(public)
        )

    def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
        return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)

    def mix(secret: bytes) -> tuple[bytes, bytes]:
        both = hkdf(secret, chaining_key, b"", 64)
        return both[:32], both[32:]

    def hashed(data: bytes) -> bytes:
        return hashlib.sha256(transcript + data).digest()

    message_1, message_2 = hex_of("message_1"), hex_of("message_2")
    first, second = message_1[34:], message_2[34:]
    chaining_key = transcript = b"Noise_IK_25519_AESGCM_SHA256".ljust(32, b"\0")
    transcript = hashed(b"Half-Tunnel 1" + message_1[:34])
    transcript = hashed(hex_of("exit_static_public"))

    transcript = hashed(first[:32])
    chaining_key, key = mix(dh("exit_static_private", first[:32]))
    client = AESGCM(key).decrypt(bytes(12), first[32:80], transcript)
    assert client == hex_of("client_static_public")
    transcript = hashed(first[32:80])
    chaining_key, key = mix(dh("exit_static_private", client))
    hello = AESGCM(key).decrypt(bytes(12), first[80:], transcript)
    assert hello.hex() == vectors["client_hello"]["payload"]
    transcript = hashed(first[80:])

    exit_ephemeral = X25519PrivateKey.from_private_bytes(hex_of("exit_ephemeral_private")).public_key()
    assert second[:32] == exit_ephemeral.public_bytes_raw()
    transcript = hashed(second[:32])
    chaining_key, _ = mix(dh("exit_ephemeral_private", first[:32]))
    chaining_key, key = mix(dh("exit_ephemeral_private", client))
    exit_hello = AESGCM(key).decrypt(bytes(12), second[32:], transcript)
    assert exit_hello.hex() == vectors["exit_hello"]["payload"]
    transcript = hashed(second[32:])

    split = hkdf(b"", chaining_key, b"", 64)
    secret = hkdf(split, transcript, b"halftunnel session", 32)
    assert secret == hex_of("session_secret")
    nonces = hello[45:61] + exit_hello[9:25]
    upstream = hkdf(secret, nonces, b"halftunnel leg" + b"u" + bytes(4), 64)
    assert upstream == hex_of("upstream_leg_0_client_to_exit") + hex_of("upstream_leg_0_exit_to_client")
    label_key = hkdf(secret, b"", b"halftunnel label" + b"d", 32)
    label = hmac.digest(label_key, b"reply" + bytes(4), "sha256")[:16]
    assert message_2[4:20] == as_uuid4(label)


def test_refusals_read_back_and_are_what_the_specification_says() -> None:
    refusals = load("handshake")["refusals"]
    assert [vector["code"] for vector in refusals] == [5, 6, 7, 8, 9]
    for vector in refusals:
        payload = bytes.fromhex(vector["payload"])
        assert ExitHello.decode(payload).status == ExitStatus[vector["status"]]
        # Section 5.3: the status, the time and the nonce; without a session all other numbers are 0.
        status, wall_time, nonce, *others = struct.unpack_from("!BQ16sIIIIB", payload)
        assert (status, wall_time) == (vector["code"], vector["wall_time"])
        assert nonce.hex() == vector["nonce"] and others == [0] * 5


def test_joins_verify_with_hmac_alone() -> None:
    schedule, vectors = load("key-schedule"), load("join")
    assert vectors["session_secret"] == schedule["session_secret"]
    for vector in vectors["joins"]:
        key = bytes.fromhex(schedule["directions"][vector["direction"]]["join_key"])
        request, reply = bytes.fromhex(vector["request"]), bytes.fromhex(vector["reply"])
        client_nonce = bytes.fromhex(vector["client_nonce"])
        assert hmac.digest(key, request[:-32], "sha256") == request[-32:]
        assert request[34:50] == client_nonce
        reply_key = hmac.digest(key, b"reply" + client_nonce, "sha256")
        assert hmac.digest(reply_key, reply[:-32], "sha256") == reply[-32:]
        assert reply[34:50].hex() == vector["exit_nonce"]


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name in MAKERS:
        (DIRECTORY / f"{name}.json").write_text(text_of(name))
