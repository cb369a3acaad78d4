"""The ports that the tests give to servers."""

from __future__ import annotations

import errno
import socket

import pytest


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.64.1", "127.255.255.254"])
def test_a_port_is_free_for_a_server_at_all_addresses_and_for_nobody_else(free_port, address):
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError) as raised:
        other.bind((address, port))
    assert raised.value.errno == errno.EADDRINUSE
    with socket.create_server(("0.0.0.0", port)) as server:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
        server.accept()[0].close()
