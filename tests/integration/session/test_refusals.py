"""Strangers, replays and nonsense: refused, counted by reason, told once, and nobody else notices."""

from __future__ import annotations

import asyncio
import secrets
import ssl

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from halftunnel_vpn.client.legs.handshake_sentences import explain
from halftunnel_vpn.errors import HandshakeError, RoadError
from halftunnel_vpn.protocol.handshake import HandshakeRefused
from halftunnel_vpn.protocol.handshake_payloads import ExitStatus
from halftunnel_vpn.protocol.join import encode_join, encode_token_join, verify_join_reply
from halftunnel_vpn.protocol.keys import Direction, KeyPair
from halftunnel_vpn.protocol.wire import PacketType, encode_header

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


class Healthy:
    """A second client with a stream under way, which must not notice anything."""

    def __init__(self, client, user):
        self.client = client
        self.user = user

    async def notices_nothing(self):
        data = secrets.token_bytes(150_000)
        assert await self.user.echo(data) == data
        assert self.user.events == ["opened"]
        assert self.client.connection.state == "connected" and self.client.losses == 0
        counted = self.client.counters.counted
        assert not counted["legs-lost-upstream"] and not counted["legs-lost-downstream"]
        assert not self.client.counters.dropped


@pytest.fixture
async def healthy(running_exit, make_client, echo_server):
    """An exit with such a client."""
    await running_exit.start(handshake_timeout=3.0)
    client = await make_client("healthy").up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    return Healthy(client, user)


@pytest.fixture
def only(running_exit, caplog, until, healthy):
    """Checks the one reason that was counted, the one line in the log, and that the other client is well."""

    async def check(reason, *, count=1, peer=None):
        await until(lambda: running_exit.dropped[reason] >= count)
        assert running_exit.dropped == {reason: count}
        lines = [r for r in caplog.records if r.name == "halftunnel_vpn.server.exit" and hasattr(r, "peer")]
        assert len(lines) == 1, "one line for a peer and a minute"
        assert lines[0].reason == reason and lines[0].getMessage().startswith(f"refused: {reason}")
        assert peer is None or lines[0].peer == peer
        assert len(running_exit.sessions("healthy")) == 1
        await healthy.notices_nothing()

    return check


async def closed_without_a_word(socket):
    """The exit closes; it says nothing before that."""
    async with asyncio.timeout(30):
        with pytest.raises(ConnectionClosed) as raised:
            message = await socket.recv()
            pytest.fail(f"the exit said {message!r}")
    assert raised.value.rcvd is None or (raised.value.rcvd.code, raised.value.rcvd.reason) == (1000, "")


# --- handshakes --------------------------------------------------------------------------------------


async def test_a_client_that_expects_another_exit(healthy, make_client, only):
    client = make_client("misled", exit_public=KeyPair(secrets.token_bytes(32)).public)
    with pytest.raises(RoadError) as raised:
        await client.connection.establish()
    assert raised.value.reason.startswith("leg-closed-")
    assert "the profile is the one it gave" in str(raised.value)
    await only("handshake-bad-tag")


async def test_a_client_that_is_not_on_the_list(healthy, make_client, only):
    client = make_client("stranger", keys=KeyPair(secrets.token_bytes(32)))
    with pytest.raises(RoadError) as raised:
        await client.connection.establish()
    assert "still on the exit's list" in str(raised.value)
    await only("handshake-unknown-client", peer="127.0.0.1")


async def test_a_message_1_that_was_captured_and_is_said_again(
    running_exit, healthy, raw, attempt, only, until
):
    captured = attempt(running_exit.admit("victim"))
    up, down = await raw(UP), await raw(DOWN)
    await up.send(captured.message)
    await down.send(captured.token)
    captured.handshake.finish(await down.recv())
    await up.close()
    await down.close()
    for _ in range(3):
        thief = await raw(UP)
        await thief.send(captured.message)
        await closed_without_a_word(thief)
    await only("handshake-replayed", count=3)
    assert len(running_exit.sessions("victim")) == 1


async def test_a_message_1_said_again_while_the_first_waits(running_exit, healthy, raw, attempt, only):
    captured = attempt(running_exit.admit("victim"))
    up, thief, down = await raw(UP), await raw(UP), await raw(DOWN)
    await up.send(captured.message)
    await thief.send(captured.message)
    await closed_without_a_word(thief)
    await down.send(captured.token)
    captured.handshake.finish(await down.recv())
    await only("handshake-replayed")


async def test_handshakes_with_one_session_id_make_one_session(running_exit, raw, attempt):
    await running_exit.start(sessions_per_client=2)
    keys = running_exit.admit()
    first = attempt(keys)
    attempts = [first] + [attempt(keys, session_id=first.hello.session_id) for _ in range(5)]
    for waiting in attempts:
        await (await raw(UP)).send(waiting.message)
    downs = [await raw(DOWN) for _ in attempts]
    for waiting, down in zip(attempts, downs, strict=True):
        await down.send(waiting.token)
    first.handshake.finish(await downs[0].recv())
    assert len(running_exit.sessions()) == 1
    assert running_exit.dropped["handshake-replayed"] == 5
    assert running_exit.counted["handshakes-accepted"] == 1


async def test_a_half_that_is_completed_after_its_client_was_removed(running_exit, healthy, raw, attempt):
    held = attempt(running_exit.admit("victim"))
    up, down = await raw(UP), await raw(DOWN)
    await up.send(held.message)
    await healthy.notices_nothing()  # so the exit has read it
    running_exit.remove("victim")
    await down.send(held.token)
    await closed_without_a_word(up)
    await closed_without_a_word(down)
    assert not running_exit.sessions("victim") and running_exit.dropped["handshake-unknown-client"] == 2


async def test_a_message_1_survives_a_restart_as_a_replay(running_exit, raw, attempt):
    await running_exit.start()
    captured = attempt(running_exit.admit("victim"))
    up, down = await raw(UP), await raw(DOWN)
    await up.send(captured.message)
    await down.send(captured.token)
    captured.handshake.finish(await down.recv())
    await running_exit.stop()
    await running_exit.start()
    thief = await raw(UP)
    await thief.send(captured.message)
    await closed_without_a_word(thief)
    assert running_exit.dropped == {"handshake-replayed": 1}


@pytest.mark.parametrize("length", [0, 1, 33, 34, 60, 130, 160])
async def test_a_message_1_that_is_cut_short(running_exit, healthy, raw, attempt, only, length):
    message = attempt(running_exit.admit("victim")).message
    socket = await raw(UP)
    await socket.send(message[:length])
    await closed_without_a_word(socket)
    await only("wire-truncated")


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        (0, "wire-bad-magic"),
        (2, "wire-bad-version"),
        (3, "wire-bad-flags"),
        (10, "handshake-bad-tag"),
        (20, "handshake-malformed"),
        (33, "wire-t"),
        (40, "handshake-bad-tag"),
        (100, "handshake-bad-tag"),
        (-1, "handshake-bad-tag"),
    ],
)
async def test_a_message_1_with_a_flipped_bit(running_exit, healthy, raw, attempt, only, position, reason):
    message = bytearray(attempt(running_exit.admit("victim")).message)
    message[position] ^= 0x10
    socket = await raw(UP)
    await socket.send(bytes(message))
    await closed_without_a_word(socket)
    if reason == "wire-t":
        (reason,) = running_exit.dropped  # shorter or longer than it says
        assert reason in ("wire-truncated", "wire-trailing-bytes")
    await only(reason)


async def test_a_message_1_on_the_downstream_road(running_exit, healthy, raw, attempt, only):
    socket = await raw(DOWN)
    await socket.send(attempt(running_exit.admit("victim")).message)
    await closed_without_a_word(socket)
    await only("handshake-on-wrong-path", peer="::1")


async def test_a_token_on_the_upstream_road(running_exit, healthy, raw, attempt, only):
    socket = await raw(UP)
    await socket.send(attempt(running_exit.admit("victim")).token)
    await closed_without_a_word(socket)
    await only("join-on-wrong-path")


@pytest.mark.parametrize("half", ["message", "token", "nothing"])
async def test_a_half_that_the_other_never_joins(running_exit, healthy, raw, attempt, only, half):
    made = attempt(running_exit.admit("victim"))
    socket = await raw(UP if half == "message" else DOWN)
    if half != "nothing":
        await socket.send(getattr(made, half))
    began = asyncio.get_running_loop().time()
    await closed_without_a_word(socket)
    assert asyncio.get_running_loop().time() - began > 1
    await only("handshake-timeout")


async def test_a_client_whose_downstream_never_answers(running_exit, healthy, make_client, until):
    """Its own road ends in nothing that knows the exit: the client says so in good time."""

    async def keep_silent(reader, writer):
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    client = make_client("lost", urls={DOWN: [f"ws://127.0.0.1:{port}/"]}, limits={"connect_timeout": 3.0})
    with pytest.raises(RoadError) as raised:
        await client.connection.establish()
    assert raised.value.reason == "handshake-timeout"
    assert "Downstream" in str(raised.value)
    silent.close()
    await healthy.notices_nothing()


async def test_more_sessions_than_a_client_may_have(running_exit, make_client):
    await running_exit.start(sessions_per_client=2)
    keys = running_exit.admit()
    clients = [await make_client(keys=keys).up() for _ in range(2)]
    with pytest.raises(HandshakeRefused) as raised:
        await make_client(keys=keys).connection.establish()
    assert raised.value.exit_hello.status is ExitStatus.SESSION_LIMIT
    assert "no further session" in explain(raised.value)
    await clients[0].down()
    await make_client(keys=keys).up()


async def test_an_exit_that_is_full(running_exit, make_client):
    await running_exit.start(max_sessions=1)
    await make_client("first").up()
    with pytest.raises(HandshakeRefused) as raised:
        await make_client("second").connection.establish()
    assert raised.value.exit_hello.status is ExitStatus.OVERLOADED
    assert "overloaded" in explain(raised.value)


async def test_an_answer_that_is_not_the_exits(running_exit, healthy, make_client, raw, attempt, monkeypatch):
    """Somebody on the downstream road answers in the exit's place, without its key."""
    from websockets.asyncio.server import serve

    async def answer(socket):
        await socket.recv()
        await socket.send(encode_header(PacketType.HANDSHAKE, bytes(16), 0, 0, 0, 100) + bytes(100))
        await socket.wait_closed()

    context = running_exit.authorities.showing("between")
    async with serve(answer, "127.0.0.1", 0, ssl=context, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        client = make_client("victim", urls={DOWN: [f"wss://127.0.0.1:{port}/"]}, authority={DOWN: "between"})
        with pytest.raises(HandshakeError) as raised:
            await client.connection.establish()
    assert raised.value.reason.startswith("handshake-bad-")
    assert "not genuine" in explain(raised.value)
    await healthy.notices_nothing()


# --- joins -------------------------------------------------------------------------------------------


@pytest.fixture
async def established(running_exit, healthy, raw, attempt):
    """A session made by hand: its keys, and both WebSockets."""
    made = attempt(running_exit.admit("victim"))
    made.up, made.down = await raw(UP), await raw(DOWN)
    await made.up.send(made.message)
    await made.down.send(made.token)
    made.exit_hello, made.keys = made.handshake.finish(await made.down.recv())
    return made


@pytest.mark.parametrize("road", [UP, DOWN])
async def test_a_join_that_was_captured_and_is_said_again(established, raw, only, road):
    message = encode_join(established.keys, road, 1, bytes(16), b"padding")
    socket = await raw(road)
    await socket.send(message)
    verify_join_reply(await socket.recv(), established.keys, road, 1, bytes(16))
    thief = await raw(road)
    await thief.send(message)
    await closed_without_a_word(thief)
    await only("join-unknown")


async def test_a_join_with_a_wrong_mac(running_exit, established, raw, only):
    message = bytearray(encode_join(established.keys, UP, 1, bytes(16), b"padding"))
    message[-1] ^= 1
    socket = await raw(UP)
    await socket.send(bytes(message))
    await closed_without_a_word(socket)
    good = await raw(UP)
    await good.send(encode_join(established.keys, UP, 1, bytes(16), b"padding"))
    await good.recv()
    await only("join-bad-mac")


async def test_a_join_of_one_road_on_the_other(established, raw, only):
    socket = await raw(DOWN)
    await socket.send(encode_join(established.keys, UP, 1, bytes(16), b""))
    await closed_without_a_word(socket)
    await only("join-on-wrong-path", peer="::1")


@pytest.mark.parametrize("number", [0, 65, 1000])
async def test_a_join_under_a_number_that_is_not_open(established, raw, only, number):
    socket = await raw(UP)
    await socket.send(encode_join(established.keys, UP, number, bytes(16), b""))
    await closed_without_a_word(socket)
    await only("join-unknown")


async def test_a_token_that_nobody_knows_times_out(healthy, raw, only):
    socket = await raw(DOWN)
    await socket.send(encode_token_join(b"\0" * 6 + b"\x40" + b"\0" + b"\x80" + b"\0" * 7, b"padding"))
    await closed_without_a_word(socket)
    await only("handshake-timeout")


# --- nonsense ----------------------------------------------------------------------------------------


def packet(*, magic=0x4854, version=1, flags=int(PacketType.HANDSHAKE), length=100):
    plain = bytearray(encode_header(flags, bytes(16), 0, 0, 0, length)) + bytes(length)
    plain[0:2] = magic.to_bytes(2, "big")
    plain[2] = version
    return bytes(plain)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (packet(magic=0x1234), "wire-bad-magic"),
        (packet(version=2), "wire-bad-version"),
        (packet(flags=0x45), "wire-bad-flags"),
        (packet(flags=PacketType.DATA), "wire-unexpected-type"),
        (packet(flags=PacketType.KEEPALIVE), "wire-unexpected-type"),
        (packet(length=4096), "wire-too-long"),
        (bytes(65536), "wire-too-long"),
        (packet(length=20), "handshake-too-short"),
        (secrets.token_bytes(300), None),
    ],
)
async def test_a_first_message_that_is_none(healthy, raw, only, running_exit, message, reason):
    socket = await raw(UP)
    await socket.send(message)
    await closed_without_a_word(socket)
    await only(reason or next(iter(running_exit.dropped)))


@pytest.mark.parametrize("road", [UP, DOWN])
async def test_a_text_message(healthy, raw, only, road):
    socket = await raw(road)
    await socket.send("hello")
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    await only("text-frame")


async def test_a_message_that_is_too_long_for_any_record(healthy, raw, only):
    socket = await raw(UP)
    with pytest.raises(ConnectionClosed):
        await socket.send(bytes(65537))
        await socket.recv()
    await only("message-too-big")


async def test_a_message_in_fragments_is_too_long_as_well(healthy, raw, only):
    socket = await raw(UP)
    with pytest.raises(ConnectionClosed):
        await socket.send([bytes(40_000), bytes(40_000)])
        await socket.recv()
    await only("message-too-big")


async def test_a_second_message_before_the_first_is_answered(running_exit, healthy, raw, attempt, only):
    socket = await raw(UP)
    message = attempt(running_exit.admit("victim")).message
    await socket.send(message)
    await socket.send(message)
    await closed_without_a_word(socket)
    await only("message-before-session")


@pytest.mark.parametrize("road", [UP, DOWN])
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "record-too-short"),
        (b"short", "record-too-short"),
        (bytes(100), "record-bad-tag"),
        (bytes(65536), "record-bad-tag"),
    ],
)
async def test_a_record_that_does_not_open(running_exit, established, raw, only, until, road, record, reason):
    socket = established.up if road is UP else established.down
    await socket.send(record)
    with pytest.raises(ConnectionClosed):
        while True:
            await socket.recv()
    (member,) = running_exit.sessions("victim")
    await until(lambda: len(member.session.legs) == 1)
    await only(reason)


async def test_a_text_message_in_a_session(running_exit, established, only, until):
    await established.up.send("hello")
    with pytest.raises(ConnectionClosed):
        while True:
            await established.up.recv()
    await only("text-frame")
    assert len(running_exit.sessions("victim")) == 1


# --- no WebSocket at all -----------------------------------------------------------------------------


def path_of(running_exit, road):
    return "/" + running_exit.url(road).rpartition("/")[2]


async def talk_http(running_exit, road, request):
    context = running_exit.authorities.trusting(running_exit.authority(road))
    reader, writer = await asyncio.open_connection(
        running_exit.addresses[road], running_exit.ports[road], ssl=context
    )
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("path", ["/", "the path of the road", "/favicon.ico"])
async def test_plain_http_sees_an_ordinary_web_server(running_exit, healthy, only, path):
    target = path if path.startswith("/") else path_of(running_exit, UP)
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    answer = await talk_http(running_exit, UP, request)
    assert answer.startswith(b"HTTP/1.1 200 OK" if path == "/" else b"HTTP/1.1 404 Not Found")
    await only("http-without-upgrade")


async def test_an_upgrade_for_another_path(running_exit, healthy, only, raw, authorities):
    from websockets.asyncio.client import connect

    context = authorities.trusting("upstream")
    url = f"wss://127.0.0.1:{running_exit.ports[UP]}{path_of(running_exit, DOWN)}"
    with pytest.raises(InvalidStatus) as raised:
        await connect(url, ssl=context, proxy=None)
    assert raised.value.response.status_code == 404
    await only("upgrade-refused")


async def test_no_http_at_all(running_exit, healthy, only):
    answer = await talk_http(running_exit, UP, b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request")
    await only("http-malformed")


async def test_no_tls_at_all(running_exit, healthy, only):
    reader, writer = await asyncio.open_connection("127.0.0.1", running_exit.ports[UP])
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"HTTP" not in await reader.read()
    writer.close()
    await only("tls-failed")


async def test_a_client_that_does_not_trust_the_certificate(running_exit, healthy, make_client, until):
    client = make_client("careful", authority={UP: "downstream"})
    with pytest.raises(RoadError) as raised:
        await client.connection.establish()
    assert raised.value.reason == "certificate-not-trusted"
    await until(lambda: running_exit.dropped["tls-failed"])
    # On a busy machine the other direction's leg may wait for this one until its own time is up.
    assert running_exit.dropped.keys() <= {"tls-failed", "handshake-timeout"}
    assert len(running_exit.sessions("healthy")) == 1 and not running_exit.sessions("careful")
    await healthy.notices_nothing()


async def test_one_peer_fills_no_log(running_exit, healthy, raw, caplog):
    for number in range(30):
        socket = await raw(UP)
        await socket.send(bytes(40 + number))
        await closed_without_a_word(socket)
    assert running_exit.dropped == {"wire-bad-magic": 30}
    lines = [record for record in caplog.records if hasattr(record, "peer")]
    assert len(lines) == 1
    await healthy.notices_nothing()


async def test_a_flood_of_strangers_is_survived(running_exit, healthy, raw):
    async def stranger(number):
        try:
            socket = await raw(UP if number % 2 else DOWN)
            await socket.send(secrets.token_bytes(number % 400))
            await socket.recv()
        except (ConnectionClosed, ssl.SSLError, OSError):
            pass

    await asyncio.gather(*(stranger(number) for number in range(150)), healthy.notices_nothing())
    await healthy.notices_nothing()
    assert len(running_exit.exit.gate._newcomers) == 0
