"""What an attacker does, in a process of its own: ``python attackers.py KIND TARGET``, TARGET being JSON.

It says ``ready`` once it has begun, attacks until its standard input ends, and prints how often it
did what it does. An insider has a client's key, a stranger has none.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from halftunnel_vpn.protocol.handshake import ClientHandshake
from halftunnel_vpn.protocol.handshake_payloads import ClientHello
from halftunnel_vpn.protocol.join import encode_join, encode_token_join
from halftunnel_vpn.protocol.keys import Direction, KeyPair, decode_key
from halftunnel_vpn.protocol.records import Sealer
from halftunnel_vpn.protocol.stream_messages import (
    Keepalive,
    KeepaliveKind,
    OpenRequest,
    StreamKind,
    encode_credit,
)
from halftunnel_vpn.protocol.wire import PacketType, as_uuid4, encode_header

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM
GONE = (OSError, WebSocketException, EOFError, TimeoutError)


class Target:
    """The exit under attack, and from where it is attacked."""

    def __init__(self, told: dict[str, object]) -> None:
        self.ports = {UP: int(told["up"]), DOWN: int(told["down"])}  # type: ignore[call-overload]
        self.paths = {UP: str(told["up_path"]), DOWN: str(told["down_path"])}
        self.exit_public = decode_key(str(told["exit"]))
        self.private = decode_key(str(told["client"]))
        self.destination = int(told.get("destination", 9))  # type: ignore[call-overload]
        self.source = str(told.get("source", "127.0.0.66"))
        self.tls = ssl.create_default_context()
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE
        self.stopped = threading.Event()
        self.done = 0

    def tcp(self, road: Direction, source: str | None = None) -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", self.ports[road]), timeout=10, source_address=(source or self.source, 0)
        )

    def leg(self, road: Direction, source: str | None = None) -> ClientConnection:
        return connect(
            f"wss://127.0.0.1:{self.ports[road]}{self.paths[road]}",
            sock=self.tcp(road, source),
            ssl=self.tls,
            server_hostname="localhost",
            proxy=None,
            compression=None,
            ping_interval=None,
            max_queue=None,
        )

    def rounds(self, pace: float = 0.0) -> Iterator[int]:
        """One round after the other until the attack is over."""
        while not self.stopped.wait(pace):
            yield self.done
            self.done += 1


class Insider:
    """A client's session, made by hand: trains go up on its first leg; what comes down is thrown away."""

    def __init__(self, target: Target) -> None:
        self.hello = ClientHello(
            session_id=as_uuid4(secrets.token_bytes(16)),
            join_token=as_uuid4(secrets.token_bytes(16)),
            timestamp=int(time.time() * 1e6),
            nonce=secrets.token_bytes(16),
        )
        handshake = ClientHandshake(
            KeyPair(target.private),
            target.exit_public,
            self.hello,
            secrets.token_bytes(32),
            packet_id=secrets.token_bytes(16),
        )
        self.message = handshake.message()
        self.up, self.down = target.leg(UP), target.leg(DOWN)
        self.up.send(self.message)
        self.down.send(encode_token_join(self.hello.join_token, secrets.token_bytes(20)))
        answer = self.down.recv()
        assert isinstance(answer, bytes)
        exit_hello, self.keys = handshake.finish(answer)
        leg_keys = self.keys.leg_keys(UP, 0, self.hello.nonce, exit_hello.nonce)
        self.sealer = Sealer(leg_keys.client_to_exit)
        for leg in (self.up, self.down):
            threading.Thread(target=self._ignore, args=(leg,), daemon=True).start()

    @staticmethod
    def _ignore(leg: ClientConnection) -> None:
        with contextlib.suppress(*GONE):
            while True:
                leg.recv()

    def packet(
        self, type_: PacketType, stream_id: int, sequence: int, acknowledgement: int, payload: bytes = b""
    ) -> bytes:
        header = encode_header(
            type_, self.hello.session_id, stream_id, sequence, acknowledgement, len(payload)
        )
        return header + payload

    def open(self, stream_id: int, host: bytes, port: int, kind: StreamKind = StreamKind.TCP) -> bytes:
        request = OpenRequest(kind, host, port, 1 << 30).encode()
        return self.packet(PacketType.OPEN, stream_id, 0, 0, request)

    def send(self, packets: bytes) -> None:
        self.up.send(self.sealer.seal([packets]))


LOOPBACK = b"\x7f\0\0\1"


# --- insiders ----------------------------------------------------------------------------------------


def _sessions(target: Target, attack: Callable[[Insider], None]) -> None:
    """Attack from inside, in a new session whenever the exit ends one."""
    for _ in target.rounds(0.02):
        with contextlib.suppress(*GONE, AssertionError):
            attack(Insider(target))


def opens(target: Target) -> None:
    """Opens streams as fast as it can, and never acknowledges anything."""

    def attack(insider: Insider) -> None:
        stream_id = 1
        while not target.stopped.is_set():
            count = 60
            insider.send(b"".join(insider.open(stream_id + i, b"", 0, StreamKind.DNS) for i in range(count)))
            stream_id += count
            target.done += count

    _sessions(target, attack)


def dials(target: Target) -> None:
    """Dials as fast as it can: a port that refuses."""

    def attack(insider: Insider) -> None:
        stream_id = 1
        while not target.stopped.is_set():
            count = 60
            insider.send(
                b"".join(insider.open(stream_id + i, LOOPBACK, target.destination) for i in range(count))
            )
            stream_id += count
            target.done += count

    _sessions(target, attack)


def pings(target: Target) -> None:
    """Asks for signs of life, hundreds in a record."""

    def attack(insider: Insider) -> None:
        ping = Keepalive(KeepaliveKind.PING, 1, 0, 0).encode()
        train = insider.packet(PacketType.KEEPALIVE, 0, 0, 0, ping) * 500
        while not target.stopped.is_set():
            insider.send(train)
            target.done += 500

    _sessions(target, attack)


def forgeries(target: Target) -> None:
    """Opens a stream, then acknowledges what was never sent and grants endless credit, again and again."""

    def attack(insider: Insider) -> None:
        for stream_id in range(1, 1 << 30):
            if target.stopped.is_set():
                return
            insider.send(
                insider.open(stream_id, b"", 0, StreamKind.DNS)
                + insider.packet(PacketType.ACK, stream_id, 0, 0, encode_credit((1 << 64) - 1))
                + insider.packet(PacketType.ACK, stream_id, 0, 77_777, bytes(8))
            )
            target.done += 1

    _sessions(target, attack)


def beyond_credit(target: Target) -> None:
    """Opens a stream and sends as fast as it can, whatever credit it has."""

    def attack(insider: Insider) -> None:
        for stream_id in range(1, 1 << 30):
            if target.stopped.is_set():
                return
            insider.send(insider.open(stream_id, LOOPBACK, target.destination))
            for sequence in range(1, 12):
                insider.send(insider.packet(PacketType.DATA, stream_id, sequence, 0, bytes(60_000)))
            target.done += 1

    _sessions(target, attack)


def reconnects(target: Target) -> None:
    """Joins a session of its own with a RECONNECT, and says the same again and again."""
    insider = Insider(target)
    joins = {
        road: encode_join(insider.keys, road, 1, secrets.token_bytes(16), secrets.token_bytes(40))
        for road in Direction
    }
    for number in target.rounds():
        with contextlib.suppress(*GONE):
            road = (UP, DOWN)[number & 1]
            with target.leg(road) as leg:
                leg.send(joins[road])
                leg.recv(timeout=2)


def crowd(target: Target) -> None:
    """Joins leg after leg, from several addresses, and keeps them all."""
    insider, kept = Insider(target), []
    numbers = dict.fromkeys(Direction, 1)
    for turn in target.rounds():
        road = (UP, DOWN)[turn & 1]
        with contextlib.suppress(*GONE):
            leg = target.leg(road, f"127.0.0.{80 + turn % 8}")
            leg.send(encode_join(insider.keys, road, numbers[road], secrets.token_bytes(16), b"padding"))
            leg.recv(timeout=2)
            kept.append(leg)
            numbers[road] += 1


def churn(target: Target) -> None:
    """Opens thousands of streams, then joins and cuts the legs that would carry what they are owed."""
    insider = Insider(target)
    for first in range(1, 2001, 60):
        insider.send(b"".join(insider.open(first + i, b"", 0, StreamKind.DNS) for i in range(60)))
    for number in target.rounds():
        with contextlib.suppress(*GONE), target.leg(DOWN) as leg:
            leg.send(encode_join(insider.keys, DOWN, number + 1, secrets.token_bytes(16), b"padding"))
            leg.recv(timeout=5)


# --- strangers ---------------------------------------------------------------------------------------


def handshakes(target: Target) -> None:
    """Handshakes of unknown keys, as fast as it can, from two addresses."""
    target.private = secrets.token_bytes(32)
    _in_parallel(target, _handshake)


def _handshake(target: Target, source: str) -> None:
    hello = ClientHello(
        session_id=as_uuid4(secrets.token_bytes(16)),
        join_token=as_uuid4(secrets.token_bytes(16)),
        timestamp=int(time.time() * 1e6),
        nonce=secrets.token_bytes(16),
    )
    handshake = ClientHandshake(
        KeyPair(target.private),
        target.exit_public,
        hello,
        secrets.token_bytes(32),
        packet_id=secrets.token_bytes(16),
    )
    with target.leg(UP, source) as leg:
        leg.send(handshake.message())
        leg.recv(timeout=2)


def replays(target: Target) -> None:
    """A handshake that was captured, said again as fast as it can."""
    captured = Insider(target).message

    def replay(target: Target, source: str) -> None:
        with target.leg(UP, source) as leg:
            leg.send(captured)
            leg.recv(timeout=2)

    _in_parallel(target, replay)


def _in_parallel(target: Target, once: Callable[[Target, str], None], workers: int = 4) -> None:
    def work(source: str) -> None:
        while not target.stopped.is_set():
            with contextlib.suppress(*GONE):
                once(target, source)
            target.done += 1

    threads = [
        threading.Thread(target=work, args=(f"127.0.0.{70 + number % 2}",), daemon=True)
        for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    target.stopped.wait()


def idlers(target: Target) -> None:
    """Thousands of sockets from many addresses that say nothing, opened again when they are closed."""
    waiting = selectors.DefaultSelector()
    for number in target.rounds():
        with contextlib.suppress(OSError):
            source = f"127.0.{1 + number % 16}.1"
            waiting.register(target.tcp((UP, DOWN)[number & 1], source), selectors.EVENT_READ)
        if number % 100 == 0:
            for key, _ in waiting.select(0):
                waiting.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]


ATTACKS = {
    attack.__name__.replace("_", "-"): attack
    for attack in (
        opens, dials, pings, forgeries, beyond_credit, reconnects, crowd, churn, handshakes, replays, idlers,
    )
}  # fmt: skip


def main() -> None:
    target = Target(json.loads(sys.argv[2]))
    os.nice(int(os.environ.get("ATTACKER_NICE", "0")))
    attack = threading.Thread(target=ATTACKS[sys.argv[1]], args=(target,), daemon=True)
    attack.start()
    while not target.done:
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.read()
    target.stopped.set()
    attack.join(3)
    print(target.done, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
