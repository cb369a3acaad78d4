"""Rotation, failover, moving to another network: new legs before old ones, and no byte lost."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable

import pytest

from halftunnel_vpn.client import backoff, connection
from halftunnel_vpn.client.legs import slots
from halftunnel_vpn.client.legs.circuit_breaker import Circuit
from halftunnel_vpn.errors import UpstreamUnavailable
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import ResetCode

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


class Domain:
    """A TCP relay to one road of the exit: a domain that can go down, come back, and swallow everything."""

    def __init__(self, host: str, port: int, road: tuple[str, int]) -> None:
        self.host, self.port = host, port
        self.accepted = 0
        self._road = road
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)

    async def down(self) -> None:
        """Refuse, and cut what there is."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def swallow(self) -> None:
        """What is connected now carries nothing any more; new connections do."""
        self._flows.clear()
        self._flows = asyncio.Event()
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        flows = self._flows
        far_reader, far_writer = await asyncio.open_connection(*self._road)

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    await flows.wait()
                    sink.write(data)
                    await sink.drain()

        both = [
            asyncio.ensure_future(pipe(reader, far_writer)),
            asyncio.ensure_future(pipe(far_reader, writer)),
        ]
        self._pipes.update(both)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            self._pipes.difference_update(both)
            for end in (writer, far_writer):
                end.transport.abort()


@pytest.fixture
async def make_domain(running_exit, free_port) -> AsyncIterator[Callable[..., Domain]]:
    """Makes domains that lead to a road of the exit."""
    made = []

    async def make(road: Direction, *, up: bool = True) -> Domain:
        domain = Domain("127.0.0.1", free_port(), (running_exit.addresses[road], running_exit.ports[road]))
        await domain.up()
        if not up:
            await domain.down()
        made.append(domain)
        return domain

    yield make
    for domain in made:
        await domain.down()


def url_of(running_exit, road: Direction, domain: Domain) -> str:
    host, port = running_exit.addresses[road], running_exit.ports[road]
    written = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return running_exit.url(road).replace(written, f"127.0.0.1:{domain.port}")


@contextlib.asynccontextmanager
async def echoing(user, *, piece: int = 50_000):
    """Data goes round all the time; whether it was the right data shows at once."""

    async def go_round() -> int:
        count = 0
        while True:
            data = secrets.token_bytes(piece)
            assert await user.echo(data) == data
            count += 1

    task = asyncio.ensure_future(go_round())
    yield
    assert not task.done(), task.exception()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_legs_rotate_by_age_without_a_gap(running_exit, make_client, echo_server, until, monkeypatch):
    monkeypatch.setattr(slots, "ROTATION_JITTER", 0.9)
    await running_exit.start()
    client = await make_client(road={"rotate_after": 1.0, "connections": 2}).up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    states = set()
    changed = client.connection._legs_changed
    client.connection._keepers._changed = lambda: (changed(), states.add(client.connection.state))
    async with echoing(user):
        await until(lambda: client.counters.counted["legs-replaced"] >= 12, seconds=60)
        await until(lambda: client.counters.counted["legs-closed-leg-retired"] >= 4)
        await until(lambda: running_exit.counted["legs-closed-leg-retired"] >= 4)
    assert states == {"connected"}, "there was always a leg in each direction"
    assert client.connection.session_number == 1 and user.events == ["opened"]
    assert not client.counters.counted["legs-closed-leg-not-drained"]
    assert not running_exit.counted["legs-closed-leg-not-drained"]
    assert not running_exit.dropped and not client.counters.dropped


async def test_legs_rotate_by_what_they_have_carried(
    running_exit, make_client, echo_server, until, monkeypatch
):
    monkeypatch.setattr(slots, "BYTES_POLL", 0.05)
    await running_exit.start()
    client = await make_client(road={"rotate_bytes": 1 << 20}).up()
    user = client.open(echo_server.port)
    async with echoing(user):
        await until(lambda: client.counters.counted["legs-replaced"] >= 6)
    assert client.connection.session_number == 1 and user.events == ["opened"]


async def test_failover_in_order_and_back_again(
    running_exit, make_client, make_domain, echo_server, until, monkeypatch
):
    monkeypatch.setattr(backoff, "MAX_DELAY", 0.3)
    await running_exit.start()
    first, second, third = [await make_domain(UP, up=number != 0) for number in range(3)]
    urls = [url_of(running_exit, UP, domain) for domain in (first, second, third)]
    client = await make_client(urls={UP: urls}, road={"policy": "failover"}).up()
    user = client.open(echo_server.port)

    def ports() -> list[int]:
        legs = [leg for leg in client.connection.legs() if leg.direction is UP and not leg.draining]
        return [int(leg.domain.rpartition(":")[2]) for leg in legs]

    async with echoing(user):
        assert ports() == [second.port], "the first one did not answer"
        breakers = client.connector.roads.breakers[UP]
        assert breakers[urls[0]].circuit is not Circuit.CLOSED
        assert breakers[urls[1]].circuit is Circuit.CLOSED
        await second.down()
        await until(lambda: ports() == [third.port])
        await second.up()
        await until(lambda: ports() == [second.port])
        await first.up()
        await until(lambda: ports() == [first.port])
        assert breakers[urls[0]].circuit is Circuit.CLOSED
    assert client.connection.session_number == 1 and user.events == ["opened"]
    assert third.accepted == 1


async def test_of_several_connections_to_a_domain_that_fails_one_tries_it(
    running_exit, make_client, make_domain, echo_server, until, monkeypatch
):
    """They wait for the same moment, wake together, and all find the domain ready to be tried."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.1)
    monkeypatch.setattr(backoff, "MAX_DELAY", 0.1)
    await running_exit.start()
    domain = await make_domain(UP)
    client = await make_client(urls={UP: [url_of(running_exit, UP, domain)]}, connections=4).up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    await domain.down()
    failures = client.counters.dropped
    # four that had begun together when it failed, and from then on one at a time
    await until(lambda: client._running.done() or failures["join-connection-refused"] >= 12)
    assert not client._running.done(), client._running.exception()
    await domain.up()
    assert await user.echo(b"patient") == b"patient"
    await until(lambda: len(client.legs(UP)) == 4)
    assert client.connection.session_number == 1 and user.events == ["opened"]


async def test_with_all_urls_in_use_the_loss_of_one_is_no_loss_of_the_direction(
    running_exit, make_client, make_domain, echo_server, until
):
    await running_exit.start()
    domains = [await make_domain(DOWN) for _ in range(2)]
    urls = [url_of(running_exit, DOWN, domain) for domain in domains]
    client = await make_client(urls={DOWN: urls}).up()
    await until(lambda: len(client.connection.legs()) == 3)
    user = client.open(echo_server.port)
    async with echoing(user):
        await domains[0].down()
        await until(lambda: len(client.connection.legs()) == 2)
        assert client.connection.state == "connected" and client.connection.lost_directions == ()
    assert user.events == ["opened"]


async def test_weights_share_the_upstream(running_exit, make_client, make_domain, echo_server, until):
    await running_exit.start()
    domains = [await make_domain(UP) for _ in range(2)]
    urls = [url_of(running_exit, UP, domain) for domain in domains]
    client = await make_client(urls={UP: urls}, upstream={"spread": "weighted", "weights": [4, 1]}).up()
    await until(lambda: len(client.connection.legs()) == 3)
    user = client.open(echo_server.port)
    data = secrets.token_bytes(5_000_000)
    assert await user.echo(data) == data
    sent = {leg.domain: leg.bytes_sent for leg in client.connection.legs() if leg.direction is UP}
    share = sent[f"127.0.0.1:{domains[0].port}"] / sum(sent.values())
    assert 0.6 < share < 0.95, "about four fifths"


@pytest.mark.parametrize("lost", [(UP,), (DOWN,), (UP, DOWN)], ids=str)
async def test_moving_off_a_network_that_swallows_everything_takes_no_detection(
    running_exit, make_client, make_domain, echo_server, until, lost
):
    await running_exit.start()
    domains = {road: await make_domain(road) for road in Direction}
    client = await make_client(
        urls={road: [url_of(running_exit, road, domain)] for road, domain in domains.items()}
    ).up()
    user = client.open(echo_server.port)
    assert await user.echo(b"before") == b"before"
    for road in lost:
        domains[road].swallow()
    waiting = asyncio.ensure_future(user.echo(b"in between" * 1000))
    await asyncio.sleep(0.05)
    client.connection.reconnect()
    assert await waiting == b"in between" * 1000
    assert not client.counters.counted["legs-silent"]
    assert client.connection.session_number == 1 and user.events == ["opened"]


async def test_a_dial_that_hangs_on_the_old_network_is_begun_again(
    running_exit, make_client, make_domain, echo_server, until
):
    await running_exit.start()
    domain = await make_domain(UP)
    client = await make_client(
        urls={UP: [url_of(running_exit, UP, domain)]}, limits={"connect_timeout": 60.0}
    ).up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    await domain.down()
    held = []
    silent = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", domain.port)
    await until(lambda: client.connection.lost_directions == (UP,))
    await until(lambda: any(slot._attempt for slot in client.connection._keepers._slots))
    silent.close()
    await domain.up()
    client.connection.reconnect()
    async with asyncio.timeout(45):  # the dial alone would take a minute
        assert await user.echo(b"there again") == b"there again"
    for writer in held:
        writer.transport.abort()


async def test_a_lost_direction_is_told_and_new_streams_fail_fast_while_old_ones_wait(
    running_exit, make_client, make_domain, echo_server, until, monkeypatch
):
    monkeypatch.setattr(connection, "FAIL_FAST_AFTER", 0.3)
    monkeypatch.setattr(backoff, "MAX_DELAY", 0.3)
    await running_exit.start()
    domain = await make_domain(UP)
    client = await make_client(urls={UP: [url_of(running_exit, UP, domain)]}).up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    await domain.down()
    await until(lambda: client.connection.lost_directions == (UP,))
    assert client.connection.state == "reconnecting"
    early = client.open(echo_server.port)

    def fails_fast() -> bool:
        try:
            client.open(echo_server.port).stream.reset(ResetCode.NORMAL)
        except UpstreamUnavailable as error:
            return "upstream leg" in str(error)
        return False

    await until(fails_fast)
    waiting = asyncio.ensure_future(user.echo(b"patient"))
    await domain.up()
    assert await waiting == b"patient"
    await early.heard("opened")
    assert not fails_fast() and client.connection.lost_directions == ()
    assert client.connection.session_number == 1


async def test_an_exit_that_has_lost_the_session_is_noticed_though_one_leg_seems_alive(
    running_exit, make_client, make_domain, echo_server, until, monkeypatch
):
    """It was killed: one road's legs are cut, the other road's front end keeps the connection open."""
    monkeypatch.setattr(backoff, "MAX_DELAY", 0.3)
    await running_exit.start()
    domain = await make_domain(DOWN)
    client = await make_client(urls={DOWN: [url_of(running_exit, DOWN, domain)]}).up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    domain.swallow()
    registry = running_exit.exit.registry
    (member,) = running_exit.sessions()
    registry.forget(member)  # as after a restart
    for leg in client.legs(UP):
        leg.abort()
    await until(lambda: client.connection.session_number == 2, seconds=60)
    assert user.events == ["opened", "aborted SHUTDOWN"]
    again = client.open(echo_server.port)
    assert await again.echo(b"anew") == b"anew"
    member.session.close(ResetCode.NORMAL, client.driver.clock())


async def test_one_refusal_is_enough_for_the_other_direction_to_ask_at_once(
    running_exit, make_client, echo_server, until
):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    (member,) = running_exit.sessions()
    running_exit.exit.registry.forget(member)
    for breaker in client.connector.roads.breakers[DOWN].values():
        breaker.failed(client.driver.clock() + 3600)  # it has been failing for long
    for road in Direction:
        for leg in client.legs(road):
            leg.abort()
    await until(lambda: client.connection.session_number == 2)
    assert user.events == ["opened", "aborted SHUTDOWN"]
    assert client.counters.counted["sessions-refused"] == 1
    member.session.close(ResetCode.NORMAL, client.driver.clock())
