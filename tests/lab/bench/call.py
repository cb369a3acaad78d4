"""One video call: datagrams as RTP sends them, 50 a second each way: `python -m lab.bench.call`.

`answer PORT` waits for a call, and sends and receives until it is silent; `call ADDRESS PORT SECONDS` makes
one. Both print as JSON what they have sent and the delay of each datagram that arrived. The delays are of one
way, since all hosts of the lab have one clock.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import time
from typing import Any, Final

INTERVAL: Final = 0.02
"""Seconds between two datagrams (RFC 3551 section 4.2)."""

SIZE: Final = 1000
"""Bytes of a datagram: 400 kbit/s."""

LAST_WAIT: Final = 1.0
"""Seconds after the last datagram that was sent in which others may still arrive."""

CALL_TIMEOUT: Final = 30.0
"""Seconds for which a call is waited for."""

_HEAD: Final = struct.Struct(">Qd")


class Call:
    """One end. ``peer`` is the other end's address, None until it is known."""

    def __init__(self, sock: socket.socket, peer: Any) -> None:
        self._socket = sock
        self._socket.setblocking(False)
        self._peer = peer
        self.sent = 0
        self.delays: dict[int, float] = {}

    def wait(self, timeout: float) -> bool:
        """Return whether the other end has called within ``timeout`` seconds."""
        ready, _, _ = select.select([self._socket], [], [], timeout)
        self._receive()
        return bool(ready)

    def talk(self, seconds: float) -> None:
        """Send and receive for so long, and then only receive for LAST_WAIT."""
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds + LAST_WAIT:
            due = began + self.sent * INTERVAL
            if now >= due and now < began + seconds:
                self._send(now)
                continue
            wait = due - now if due < began + seconds else began + seconds + LAST_WAIT - now
            select.select([self._socket], [], [], max(0.0, wait))
            self._receive()

    def _send(self, now: float) -> None:
        head = _HEAD.pack(self.sent, now)
        self.sent += 1
        try:
            self._socket.sendto(head.ljust(SIZE, b"\0"), self._peer)
        except OSError:
            return  # counts as lost

    def _receive(self) -> None:
        while True:
            try:
                data, self._peer = self._socket.recvfrom(2048)
            except OSError:
                return
            number, sent_at = _HEAD.unpack_from(data)
            self.delays.setdefault(number, time.monotonic() - sent_at)

    def as_json(self) -> str:
        """Return what this end has sent, and the delays of what it received."""
        return json.dumps({"sent": self.sent, "delays": list(self.delays.values())})


def main() -> None:
    """Read the command line and talk."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    answering = commands.add_parser("answer")
    answering.add_argument("port", type=int)
    calling = commands.add_parser("call")
    calling.add_argument("address")
    calling.add_argument("port", type=int)
    for each in (answering, calling):
        each.add_argument("seconds", type=float)
    options = parser.parse_args()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if options.command == "answer":
            sock.bind(("", options.port))
            print("waiting", flush=True)
            call = Call(sock, None)
            if not call.wait(CALL_TIMEOUT):
                raise SystemExit("nobody called")
        else:
            call = Call(sock, (options.address, options.port))
        call.talk(options.seconds)
        print(call.as_json(), flush=True)


if __name__ == "__main__":
    main()
