"""Many open TCP connections, and a program that makes them: `python -m lab.bench.flows`.

`serve PORT` answers every byte with itself; `hold ADDRESS PORT COUNT` opens connections, sends something
over each and waits until it is back, prints `holding N` and then keeps them open until it is ended.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

from halftunnel_vpn.errors import HostError
from lab.topology import CLIENT, TARGET, TARGET_ADDRESS, Lab

ECHO_PORT: Final = 5302
"""Where the target echoes."""

AT_ONCE: Final = 64
"""Connections that are being opened at the same time."""

SPARE_FILES: Final = 100
"""Files a process needs besides its connections."""

HOLD_TIMEOUT: Final = 60.0
"""Seconds until all must be open."""

_GREETING: Final = b"x" * 100
_MODULE: Final = "lab.bench.flows"


def most_flows() -> int:
    """How many connections one process may have here, by its hard limit on files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard - SPARE_FILES


@contextlib.contextmanager
def held(lab: Lab, count: int) -> Iterator[None]:
    """``count`` connections from the client to the target, open within the block. HostError if they fail."""
    server = lab.start(TARGET, [sys.executable, "-m", _MODULE, "serve", str(ECHO_PORT)])
    try:
        lab.wait_listening(TARGET, ECHO_PORT)
        argv = [sys.executable, "-m", _MODULE, "hold", TARGET_ADDRESS, str(ECHO_PORT), str(count)]
        holder = lab.start(CLIENT, argv)
        try:
            deadline = time.monotonic() + HOLD_TIMEOUT
            while f"holding {count}\n" not in lab.output(holder):
                if holder.poll() is not None or time.monotonic() > deadline:
                    raise HostError(f"{count} connections are not to be had: {lab.output(holder).strip()}")
                time.sleep(0.02)
            yield
        finally:
            lab.stop(holder)
    finally:
        lab.stop(server)


def serve(port: int) -> None:
    """Echo until ended."""
    selector = selectors.DefaultSelector()
    with socket.create_server(("", port), backlog=4096) as listener:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj is listener:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            connection, _ = listener.accept()
                            connection.setblocking(False)
                            selector.register(connection, selectors.EVENT_READ)
                else:
                    _echo(selector, key.fileobj)


def _echo(selector: selectors.BaseSelector, connection: socket.socket) -> None:
    try:
        data = connection.recv(65536)
        if data:
            connection.send(data)
            return
    except OSError:
        pass  # reset: as good as closed
    selector.unregister(connection)
    connection.close()


def hold(address: str, port: int, count: int) -> None:
    """Open ``count`` connections, a few at a time, and keep them. OSError when one fails."""
    selector = selectors.DefaultSelector()
    opened: list[socket.socket] = []
    waiting = 0
    while len(opened) < count:
        while waiting < AT_ONCE and len(opened) + waiting < count:
            connection = socket.socket()
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.connect((address, port))
            selector.register(connection, selectors.EVENT_WRITE)
            waiting += 1
        for key, events in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if events & selectors.EVENT_WRITE:
                key.fileobj.send(_GREETING)
                selector.modify(key.fileobj, selectors.EVENT_READ)
                continue
            if not key.fileobj.recv(len(_GREETING)):
                raise ConnectionError(f"connection {len(opened) + 1} was closed")
            selector.unregister(key.fileobj)
            opened.append(key.fileobj)
            waiting -= 1
    print(f"holding {len(opened)}", flush=True)
    signal.pause()


def main() -> None:
    """Read the command line; SIGTERM ends either program."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("port", type=int)
    holding = commands.add_parser("hold")
    holding.add_argument("address")
    holding.add_argument("port", type=int)
    holding.add_argument("count", type=int)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.command == "serve":
        serve(options.port)
    else:
        hold(options.address, options.port, options.count)


if __name__ == "__main__":
    main()
