"""How connections end: half-closed by either side, reset by either side, closed with data under way."""

from __future__ import annotations

import contextlib
import socket

import pytest

pytestmark = pytest.mark.root

LARGE = 50_000_000


@pytest.fixture(params=(4, 6), ids=("ipv4", "ipv6"))
def pair(request, ends):
    return ends.pair(request.param)


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    return sock.recv(size, socket.MSG_WAITALL)


def fill(sock: socket.socket) -> None:
    """Send until every buffer on the way is full, and stays so for a while."""
    sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            sock.send(bytes(1 << 18))


def test_a_client_that_has_shut_its_write_side_reads_a_large_answer(pair, bulk):
    client, target = pair
    client.sendall(b"a question")
    client.shutdown(socket.SHUT_WR)
    assert receive_exactly(target, 10) == b"a question"
    assert target.recv(1) == b""
    answer = bulk.send(target, LARGE)
    assert bulk.receive(client).result() == answer.result()


def test_a_target_that_has_shut_its_write_side_reads_all_that_the_client_still_sends(pair, bulk):
    client, target = pair
    target.sendall(b"enough from me")
    target.shutdown(socket.SHUT_WR)
    assert receive_exactly(client, 14) == b"enough from me"
    assert client.recv(1) == b""
    rest = bulk.send(client, LARGE)
    assert bulk.receive(target).result() == rest.result()


def test_both_sides_finish_at_once_behind_large_data(pair, bulk):
    client, target = pair
    sent = [bulk.send(client, LARGE), bulk.send(target, LARGE)]
    received = [bulk.receive(target), bulk.receive(client)]
    assert [future.result() for future in sent] == [future.result() for future in received]


def test_a_reset_by_the_client_is_a_reset_at_the_target(pair, reset):
    client, target = pair
    client.sendall(b"so far")
    assert receive_exactly(target, 6) == b"so far"
    reset(client)
    with pytest.raises(ConnectionResetError):
        target.recv(1)


def test_a_reset_by_the_target_is_a_reset_at_the_client(pair, reset):
    client, target = pair
    target.sendall(b"so far")
    assert receive_exactly(client, 6) == b"so far"
    reset(target)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.parametrize("far_end", ("client", "target"))
def test_a_reset_right_behind_data_is_seen(ends, reset, far_end):
    """Again and again: the tunnel may find both at once, or one after the other."""
    for _ in range(20):
        near, far = ends.pair() if far_end == "target" else reversed(ends.pair())
        far.sendall(b"x" * 1000)
        reset(far)
        with pytest.raises(ConnectionResetError):
            while data := near.recv(1000):  # a reset may overtake data, or not
                assert data == b"x" * len(data)


@pytest.mark.parametrize("far_end", ("client", "target"))
def test_a_reset_is_seen_behind_more_than_the_road_can_hold(pair, reset, far_end):
    near, far = pair if far_end == "target" else reversed(pair)
    fill(far)
    reset(far)
    with pytest.raises(ConnectionResetError):
        while near.recv(1 << 20):
            pass


def test_a_client_that_closes_with_unread_data_resets(pair, bulk):
    client, target = pair
    sent = bulk.send(target, LARGE)
    assert len(client.recv(1)) == 1
    client.close()
    assert isinstance(sent.exception(), ConnectionResetError | BrokenPipeError)


def test_a_target_that_closes_while_the_client_goes_on_sending_resets(pair, bulk):
    client, target = pair
    sent = bulk.send(client, LARGE)
    assert len(target.recv(1)) == 1
    target.close()
    assert isinstance(sent.exception(), ConnectionResetError | BrokenPipeError)


def test_a_half_closed_connection_can_still_be_reset_by_the_target(pair, reset):
    client, target = pair
    client.shutdown(socket.SHUT_WR)
    assert target.recv(1) == b""
    reset(target)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_half_closed_connection_can_still_be_reset_by_the_client(pair, reset):
    client, target = pair
    target.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    reset(client)
    with pytest.raises(ConnectionResetError):
        target.recv(1)


def test_after_the_target_is_gone_writing_fails_as_on_any_other_road(pair, eventually):
    client, target = pair
    target.close()
    assert client.recv(1) == b""

    def fails() -> bool:
        try:
            client.send(b"is anybody there?")
        except (ConnectionResetError, BrokenPipeError):
            return True
        return False

    eventually(fails)


def test_keepalive_probes_of_an_idle_program_are_answered(ends):
    client, target = ends.pair(4)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
        client.setsockopt(socket.IPPROTO_TCP, option, 1)
    client.settimeout(4)  # one unanswered probe would have ended the connection after two seconds
    with pytest.raises(TimeoutError) as caught:
        client.recv(1)
    assert caught.value.errno is None, "it was not the kernel that gave up"
    target.sendall(b"still there")
    assert receive_exactly(client, 11) == b"still there"


def test_an_urgent_byte_stays_in_its_place_in_both_directions(pair):
    for sender, receiver in (pair, pair[::-1]):
        sender.sendall(b"abc")
        sender.send(b"!", socket.MSG_OOB)
        sender.sendall(b"def")
        received = b""
        while len(received) < 7 and (piece := receiver.recv(7)):
            received += piece
        assert received == b"abc!def"
