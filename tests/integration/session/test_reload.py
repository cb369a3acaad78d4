"""An exit that reads its files again while clients use it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
import ssl

import pytest

from halftunnel_vpn.config.shared import DEFAULT_NICE
from halftunnel_vpn.errors import HostError, RoadError
from halftunnel_vpn.protocol.keys import Direction, KeyPair, encode_key
from halftunnel_vpn.server import reload as reload_module
from halftunnel_vpn.transport.listening_socket import listening_socket

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


async def shown(running_exit, road):
    """Fingerprint of the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(
        running_exit.addresses[road], running_exit.ports[road], ssl=context
    )
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return hashlib.sha256(certificate).hexdigest()


def renew(running_exit, road):
    """Write another certificate and key where the exit reads them; returns its fingerprint."""
    certificate, _ = running_exit.authorities.issue(road.name.lower())
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


async def test_certificates_are_renewed_under_a_transfer_that_notices_nothing(
    running_exit, make_client, echo_server, monkeypatch, until
):
    monkeypatch.setattr(reload_module, "POLL_INTERVAL", 0.05)
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    legs = [client.legs(road) for road in Direction]
    data = secrets.token_bytes(3_000_000)
    is_over = False

    async def transfer() -> int:
        rounds = 0
        while not is_over:
            assert await user.echo(data) == data
            rounds += 1
        return rounds

    transferring = asyncio.ensure_future(transfer())
    await user.until(lambda: user.received)
    for round_ in range(3):
        renewed = {road: renew(running_exit, road) for road in Direction}
        if not round_:
            assert running_exit.reloader.reload() is not None
        for road, expected in renewed.items():
            async with asyncio.timeout(30):
                while await shown(running_exit, road) != expected:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
    assert not transferring.done()
    is_over = True
    assert await transferring > 0
    assert [client.legs(road) for road in Direction] == legs, "no leg was reset"
    assert client.losses == 0 and len(running_exit.sessions()) == 1
    await make_client("phone").up()


async def test_a_spoilt_certificate_is_refused_once_and_the_old_one_goes_on(
    running_exit, monkeypatch, until, caplog
):
    monkeypatch.setattr(reload_module, "POLL_INTERVAL", 0.05)
    await running_exit.start()
    before = await shown(running_exit, UP)
    certificate, _ = running_exit.authorities.issue("upstream")
    certificate.write_text("half of a cert")
    await until(lambda: running_exit.dropped["certificates-refused"])
    assert await shown(running_exit, UP) == before
    assert running_exit.reloader.reload() is None
    (line,) = [line for line in caplog.messages if line.startswith("the new certificates are refused")]
    assert str(certificate) in line and "the old ones stay in force" in line
    assert running_exit.dropped == {"certificates-refused": 1, "reload-refused": 1}
    after = renew(running_exit, UP)
    await until(lambda: running_exit.counted["certificates-renewed"])
    assert await shown(running_exit, UP) == after


async def test_a_reload_takes_over_limits_egress_resolvers_and_the_key(
    running_exit, make_client, echo_server, until
):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    new_key = KeyPair(secrets.token_bytes(32))
    (running_exit.directory / "exit.key").write_text(encode_key(new_key.private))
    running_exit.write(
        limits={"memory": "64MiB", "session_idle": "11s", "udp_idle": "7s", "dials_per_client": 3,
                "max_dials": 5, "streams_per_client": 2, "sessions_per_client": 1},
        egress={"deny": ["127.0.0.0/8"]},
        dns={"resolvers": ["127.0.0.9"]},
    )  # fmt: skip
    assert running_exit.reloader.reload() is not None
    exit_ = running_exit.exit
    assert (exit_.memory.limit, exit_.registry.idle_timeout, exit_.nat.limits.udp_idle) == (
        64 << 20,
        11.0,
        7.0,
    )
    assert (exit_.nat.dialer.limits.per_client, exit_.nat.dialer.limits.total) == (3, 5)
    assert exit_.nat.resolver._servers == [("127.0.0.9", 53)]
    assert await user.echo(b"what is open stays open") == b"what is open stays open"
    refused = client.open(echo_server.port)
    await until(lambda: refused.events == ["refused DENIED"])
    with pytest.raises(RoadError):
        await make_client("phone").up()
    await make_client("tablet", exit_public=new_key.public).up()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[server", "server.toml"),
        ('[server]\nprivate_key = "gone.key"', "gone.key"),
    ],
)
async def test_a_wrong_file_is_refused_as_a_whole(running_exit, make_client, caplog, text, sentence):
    await running_exit.start()
    client = await make_client().up()
    running_exit.write(limits={"session_idle": "11s"})
    path = running_exit.directory / "server.toml"
    path.write_text(path.read_text().replace('[server]\nprivate_key = "exit.key"', text))
    assert running_exit.reloader.reload() is None
    assert running_exit.exit.registry.idle_timeout == 300.0
    (line,) = [line for line in caplog.messages if "is refused and the old one stays in force" in line]
    assert sentence in line and line.count("\n") == 0
    assert client.connection.state == "connected"


async def test_what_only_a_restart_changes_is_named_and_the_rest_is_applied(
    running_exit, make_client, caplog
):
    await running_exit.start()
    listen = running_exit.document["listen"]
    listen = {**listen, "upstream": {**listen["upstream"], "port": 1}}
    running_exit.write(limits={"nice": DEFAULT_NICE + 1, "session_idle": "11s"}, listen=listen)
    assert running_exit.reloader.reload() is not None
    assert running_exit.exit.registry.idle_timeout == 11.0
    assert (
        "a restart is needed for the new values of: [limits] nice, [listen.upstream] address, port, tls"
        in caplog.messages
    )
    await make_client().up()


async def test_secret_paths_and_clients_change_with_a_reload(running_exit, make_client, until):
    await running_exit.start()
    client = await make_client().up()
    listen = {
        name: {**running_exit.document["listen"][name], "path": f"/other-{name}"}
        for name in ("upstream", "downstream")
    }
    running_exit.write(listen=listen)
    running_exit.remove("laptop")
    assert running_exit.reloader.reload() is not None
    await until(lambda: not running_exit.sessions())
    assert [set(listener.paths) for listener in running_exit.listeners] == [
        {"/other-upstream"},
        {"/other-downstream"},
    ]
    await until(lambda: client.counters.counted["sessions-ended-by-exit"] == 1)


def test_without_ipv6_every_address_means_every_ipv4_address(monkeypatch, caplog, free_port):
    """Stands in for the kernel: no such family, as with `ipv6.disable=1`."""

    class WithoutIpv6(socket.socket):
        def __init__(self, family=socket.AF_INET, *rest, **named):
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", WithoutIpv6)
    port = free_port("127.0.0.1")
    with listening_socket("::", port) as sock:
        assert sock.getsockname() == ("0.0.0.0", port)
    assert f"this machine has no IPv6, so :: port {port} listens on 0.0.0.0" in caplog.messages
    with pytest.raises(HostError, match="this machine has no IPv6; choose an IPv4 address"):
        listening_socket("::1", port)
