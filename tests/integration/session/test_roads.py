"""What a proxy that terminates the TLS of a path can see and change, and what it cannot correlate."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import secrets

import pytest
import websockets.asyncio.client
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from halftunnel_vpn.client import backoff
from halftunnel_vpn.errors import HandshakeError
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.wire import HEADER, HEADER_LENGTH, PacketType

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


class Seen:
    """What passed on one leg: request and response, and the messages each way."""

    def __init__(self, request, response):
        self.request = request
        self.response = response
        self.from_client = []
        self.from_exit = []


class Between:
    """A reverse proxy that ends TLS: it writes down what it sees, and may change or drop messages.

    ``meddle`` gets (way, number, message), way ``up`` towards the exit, and gives the messages to pass on.
    """

    def __init__(self, running_exit, road):
        self._exit = running_exit
        self._road = road
        self.legs = []
        self.meddle = honest
        self.url = ""

    async def pass_on(self, client):
        context = self._exit.authorities.trusting(self._exit.authority(self._road))
        async with websockets.asyncio.client.connect(
            self._exit.url(self._road),
            ssl=context,
            proxy=None,
            compression=None,
            ping_interval=None,
            max_size=None,
        ) as exit_:
            seen = Seen(client.request, exit_.response)
            self.legs.append(seen)
            ways = [
                asyncio.ensure_future(self._carry("up", client, exit_, seen.from_client)),
                asyncio.ensure_future(self._carry("down", exit_, client, seen.from_exit)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, way, source, target, seen):
        with contextlib.suppress(ConnectionClosed):
            for number in itertools.count():
                message = await source.recv()
                seen.append(message)
                for passed in self.meddle(way, number, message):
                    await target.send(passed)


def honest(way, number, message):
    return [message]


def flipped_at(message, position):
    position %= len(message)
    return message[:position] + bytes([message[position] ^ 0x40]) + message[position + 1 :]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.1)


@pytest.fixture
async def roads(running_exit):
    """The exit, and somebody between on each road."""
    await running_exit.start()
    stack = contextlib.AsyncExitStack()
    made = {}
    for road in Direction:
        between = made[road] = Between(running_exit, road)
        server = await stack.enter_async_context(
            serve(
                between.pass_on,
                "127.0.0.1",
                0,
                ssl=running_exit.authorities.showing("between"),
                compression=None,
                ping_interval=None,
                max_size=None,
            )
        )
        path = running_exit.url(road).rpartition("/")[2]
        between.url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}/{path}"
    yield made
    await stack.aclose()


@pytest.fixture
def connect(roads, make_client):
    """Clients whose roads lead by those who stand between."""

    async def make(name="laptop", **options):
        urls = {road: [between.url] for road, between in roads.items()}
        authority = dict.fromkeys(Direction, "between")
        return await make_client(name, urls=urls, authority=authority, **options).up()

    return make


def windows(data, size=8):
    return {bytes(data[i : i + size]) for i in range(len(data) - size + 1)}


def fields(message):
    """SessionID and payload of a first message: all of it that is no constant of the protocol."""
    magic, version, flags, session_id, stream, sequence, acknowledgement, length = HEADER.unpack_from(message)
    assert (magic, version, stream, sequence, acknowledgement) == (0x4854, 1, 0, 0, 0)
    assert flags & 0x7F in (PacketType.HANDSHAKE, PacketType.RECONNECT)
    assert len(message) in (HEADER_LENGTH + length, HEADER_LENGTH + length + 32)
    return session_id, message[HEADER_LENGTH:]


PUBLIC_HEADERS = {
    ("upgrade", "websocket"),
    ("connection", "upgrade"),
    ("sec-websocket-version", "13"),
    ("host", "127.0.0.1"),
    ("server", "nginx"),
    ("pragma", "no-cache"),
    ("cache-control", "no-cache"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-us,en;q=0.9"),
    ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
}
"""Header values of every WebSocket of a browser, or that stand for the test's own loopback addresses."""

USER_AGENT = re.compile(
    r"Mozilla/5\.0 \(X11; Linux x86_64\) AppleWebKit/537\.36 \(KHTML, like Gecko\) "
    r"Chrome/[0-9]{2,3}\.0\.0\.0 Safari/537\.36"
)
"""The User-Agent of millions of browsers: only the first number of the version is given."""


def is_public(name, value, request):
    """Whether a header tells nothing that sets this client apart from the crowd of a browser's users."""
    if name == "origin":  # the road's own name, which Host says as well
        return value == f"https://{request.headers['host']}"
    if name == "user-agent":
        return USER_AGENT.fullmatch(value) is not None
    value = value.lower()
    return (name, value.partition(":")[0] if name == "host" else value) in PUBLIC_HEADERS


def values(seen):
    """What stands in clear on a leg, in pieces: path, header values, fields of the first messages."""
    pieces = [seen.request.path.encode()]
    for headers in (seen.request.headers, seen.response.headers):
        for name, value in headers.raw_items():
            if name.lower() == "date":
                continue  # the same second on every server of the world
            if not is_public(name.lower(), value, seen.request):
                pieces.append(value.encode())
    pieces += fields(seen.from_client[0])
    if seen.from_exit[0].startswith(b"HT"):  # on the first upstream leg there is no answer but records
        pieces += fields(seen.from_exit[0])
    return pieces


async def test_two_roads_have_no_value_in_common(roads, connect, running_exit, echo_server, until):
    client = await connect(connections=2)
    await until(lambda: len(client.legs(UP)) == len(client.legs(DOWN)) == 2)
    user = client.open(echo_server.port)
    assert len(await user.echo(secrets.token_bytes(100_000))) == 100_000
    for _ in range(2):  # further legs, under labels
        for road in (UP, DOWN):
            for leg in client.legs(road):
                leg.abort()
        await until(lambda: client.connection.state == "reconnecting")
        await until(lambda: len(client.legs(UP)) == len(client.legs(DOWN)) == 2)
    legs = [(road, seen) for road, between in roads.items() for seen in between.legs]
    assert len(legs) == 12
    session_id = client.connection.session.session_id
    keys = running_exit.keys.public
    in_clear = []
    for road, seen in legs:
        everything = b"\n".join(
            [*values(seen), *seen.from_client, *seen.from_exit, seen.request.path.encode()]
        )
        assert session_id not in everything, "the session's own number never stands in clear"
        assert keys not in everything
        in_clear.append((road, set().union(*(windows(value) for value in values(seen)))))
    for (road, one), (other_road, other) in itertools.combinations(in_clear, 2):
        common = one & other
        if road is other_road:
            common -= windows(roads[road].legs[0].request.path.encode())  # all legs of a road share its path
        assert not common, f"{road.name} and {other_road.name}: {common}"


async def test_first_messages_have_no_fixed_length(roads, connect):
    lengths = set()
    for number in range(6):
        client = await connect(f"client{number}")
        await client.down()
    for between in roads.values():
        lengths.update(len(seen.from_client[0]) for seen in between.legs)
    assert len(lengths) > 6


async def test_records_tell_nothing_of_what_they_hold(roads, connect, echo_server):
    client = await connect()
    user = client.open(echo_server.port)
    secret = b"the quick brown fox jumps over the lazy dog" * 500
    assert await user.echo(secret) == secret
    for between in roads.values():
        for seen in between.legs:
            for message in seen.from_client + seen.from_exit:
                assert b"quick brown" not in message
            # SessionID and header fields are inside too
            for record in seen.from_client[1:] + seen.from_exit[1:]:
                assert client.connection.session.session_id not in record


@pytest.mark.parametrize("road", [UP, DOWN])
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_record_with_a_flipped_bit_costs_a_leg_and_nothing_else(
    roads, connect, running_exit, make_client, echo_server, until, road, way
):
    healthy = await make_client("healthy").up()
    theirs = healthy.open(echo_server.port)
    await theirs.heard("opened")
    client = await connect()
    user = client.open(echo_server.port)
    await user.heard("opened")
    flipped = []

    def flip(direction, number, message):
        if direction == way and not flipped:
            flipped.append(number)
            return [flipped_at(message, secrets.randbelow(len(message)))]
        return [message]

    roads[road].meddle = flip
    data = secrets.token_bytes(1_000_000)
    if (way == "up") == (road is UP):
        assert await user.echo(data) == data
    else:
        # only keepalives travel against the stream of a road: ask for one
        for session in (client.connection.session, running_exit.sessions()[0].session):
            for state in session.legs_of(road):
                session._keepalive._due(state, client.driver.clock())
        await until(lambda: flipped)
        assert await user.echo(data) == data
    end = running_exit.dropped if way == "up" else client.counters.dropped
    await until(lambda: end["record-bad-tag"] == 1)
    await until(lambda: client.connection.state == "connected")
    assert client.connection.session_number == 1 and user.events == ["opened"]
    assert await user.echo(data) == data
    assert await theirs.echo(data) == data and theirs.events == ["opened"]
    assert not healthy.counters.dropped and healthy.losses == 0
    other_end = client.counters.dropped if way == "up" else running_exit.dropped
    assert not other_end["record-bad-tag"]


@pytest.mark.parametrize("trick", ["drop", "repeat", "swap"])
async def test_records_that_are_dropped_repeated_or_swapped_end_the_leg(
    roads, connect, running_exit, echo_server, until, trick
):
    client = await connect()
    user = client.open(echo_server.port)
    await user.heard("opened")
    held = []

    def meddle(way, number, message):
        if way != "up" or len(held) == 2:
            return [message]
        held.append(message)
        if trick == "repeat":
            held.append(message)
            return held
        if trick == "drop":
            held.append(message)
            return []
        return held[::-1] if len(held) == 2 else []

    roads[UP].meddle = meddle
    data = secrets.token_bytes(1_000_000)
    assert await user.echo(data) == data
    await until(lambda: running_exit.dropped["record-bad-tag"] == 1)
    assert client.connection.session_number == 1 and user.events == ["opened"]


async def test_a_message_2_that_was_changed_is_not_believed(roads, make_client, running_exit):
    roads[DOWN].meddle = lambda way, number, message: (
        [flipped_at(message, -1)] if way == "down" and number == 0 else [message]
    )
    urls = {road: [between.url] for road, between in roads.items()}
    client = make_client(urls=urls, authority=dict.fromkeys(Direction, "between"))
    with pytest.raises(HandshakeError) as raised:
        await client.connection.establish()
    assert raised.value.reason == "handshake-bad-tag"


async def test_a_join_reply_that_was_changed_is_not_believed_and_the_next_one_is(
    roads, connect, running_exit, echo_server, until
):
    client = await connect()
    user = client.open(echo_server.port)
    await user.heard("opened")
    changed = []

    def meddle(way, number, message):
        if way == "down" and number == 0 and not changed:
            changed.append(1)
            return [flipped_at(message, 40)]
        return [message]

    roads[UP].meddle = meddle
    for leg in client.legs(UP):
        leg.abort()
    data = secrets.token_bytes(100_000)
    assert await user.echo(data) == data
    assert changed and client.counters.dropped == {"join-join-bad-mac": 1}
    assert client.connection.session_number == 1


async def test_somebody_who_holds_everything_back_is_noticed(
    roads, connect, running_exit, echo_server, until
):
    """A road that swallows all it gets: the legs on it are given up, and the session waits for others."""
    client = await connect(limits={"keepalive": 1.0})
    user = client.open(echo_server.port)
    await user.heard("opened")
    roads[UP].meddle = lambda way, number, message: []
    await until(lambda: client.counters.counted["legs-closed-leg-silent"] >= 1)
    roads[UP].meddle = honest
    data = secrets.token_bytes(100_000)
    assert await user.echo(data) == data
    assert client.connection.session_number == 1


async def test_asked_to_reconnect_every_leg_is_replaced_and_streams_go_on(
    running_exit, make_client, echo_server, until
):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    before = {(leg.direction, leg.number) for leg in client.connection.legs()}
    assert len(before) == 2
    client.connection.reconnect()
    await until(
        lambda: (
            client.connection.state == "connected"
            and not before & {(leg.direction, leg.number) for leg in client.connection.legs()}
        )
    )
    assert await user.echo(b"as if nothing had been") == b"as if nothing had been"
    assert client.connection.session_number == 1 and client.connection.lost_directions == ()
    for leg in client.connection.legs():
        assert leg.domain and leg.address in ("127.0.0.1", "::1") and leg.age < 60
