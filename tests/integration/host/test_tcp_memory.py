"""The memory that TCP uses, read from the running kernel."""

from __future__ import annotations

import contextlib
import socket

from halftunnel_vpn.host import resources


def test_what_tcp_uses_is_told_here():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sender:
        sender.connect(server.getsockname())
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.send(bytes(65536))
        assert resources.tcp_memory() > 0
