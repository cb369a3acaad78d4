"""`htvpn server proxy-config`: HAProxy, nginx and Caddy accept it, and sessions join behind HAProxy."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import stat
import sys
from pathlib import Path

import pytest
from lab.nginx import TEMPORARY_PATHS
from lab.processes import Processes, listening

from halftunnel_vpn.cli.arguments import build_parser
from halftunnel_vpn.config.server import parse_server
from halftunnel_vpn.errors import ConfigError, HostError
from halftunnel_vpn.protocol.keys import encode_key, parse_key_pair

HTVPN = (sys.executable, "-m", "halftunnel_vpn.cli", "server")
DIRECTIONS = ("upstream", "downstream")
HOST = "127.0.0.1"

CHECKS = {
    "haproxy": ("-c", "-f", "{file}"),
    "nginx": ("-t", "-e", "{directory}/error.log", "-p", "{directory}", "-c", "{directory}/nginx.conf"),
    "caddy": ("validate", "--adapter", "caddyfile", "--config", "{file}"),
}

NGINX = (
    """\
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
"""
    + TEMPORARY_PATHS
    + """\
    include {file};
}}
"""
)


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{name} is not installed; scripts/bootstrap installs it"
    return found


def run_here(*words: object) -> None:
    """Run a command of `htvpn server` in this process."""
    options = build_parser().parse_args(["server", *map(str, words)])
    assert options.run(options) == 0


@pytest.fixture
async def processes(tmp_path):
    made = Processes(tmp_path)
    yield made
    await made.end()


class Exits:
    """Two exits on loopback without TLS, each of two domains that both share."""

    def __init__(self, directory: Path, processes: Processes, free_port, authorities) -> None:
        self.directories = [directory / "one", directory / "two"]
        self.public = {direction: free_port() for direction in DIRECTIONS}
        self.inside = [{direction: free_port() for direction in DIRECTIONS} for _ in self.directories]
        self.authority = authorities.pem("proxy")
        self.certificates = directory / "certificates"
        certificate, key = authorities.issue("proxy")
        place = self.certificates / HOST
        place.mkdir(parents=True)
        shutil.copy(certificate, place / "fullchain.pem")
        shutil.copy(key, place / "privkey.pem")
        (self.certificates / f"{HOST}.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
        self._processes = processes

    def init(self) -> None:
        for directory, ports in zip(self.directories, self.inside, strict=True):
            words = ["--behind-proxy", "--allow-egress", "127.0.0.0/8", "--dns", "127.0.0.1"]
            for direction in DIRECTIONS:
                words += [f"--{direction}", f"wss://{HOST}:{self.public[direction]}"]
                words += [f"--listen-{direction}", f"127.0.0.1:{ports[direction]}"]
            run_here("init", "--dir", directory, *words)

    def proxy_config(self, *words: object) -> None:
        directories = [word for directory in self.directories for word in ("--dir", directory)]
        run_here("proxy-config", *words, *directories, "--certificates", self.certificates)

    async def start(self, number: int) -> asyncio.subprocess.Process:
        process = await self._processes.start(*HTVPN, "run", "--dir", self.directories[number])
        for port in self.inside[number].values():
            await listening(port)
        return process

    async def profile(self, number: int) -> str:
        text = await self._processes.run(*HTVPN, "add-client", "laptop", "--dir", self.directories[number])
        return f'{text}\n[tls]\nca = """\n{self.authority}"""\n'


@pytest.fixture
async def exits(tmp_path, processes, free_port, authorities):
    made = Exits(tmp_path, processes, free_port, authorities)
    made.init()
    return made


async def test_each_program_accepts_its_configuration(exits, processes, tmp_path):
    paths = {
        getattr(parse_server((directory / "server.toml").read_text()).listen, direction).path
        for directory in exits.directories
        for direction in DIRECTIONS
    }
    for name, words in CHECKS.items():
        for number, site in enumerate(((), ("--site", "http://127.0.0.1:8080"))):
            file = tmp_path / f"{name}-{number}"
            exits.proxy_config(name, *site, "--output", file)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            text = file.read_text()
            assert all(path in text for path in paths)
            assert ("127.0.0.1:8080" in text) == bool(site)
            (tmp_path / "nginx.conf").write_text(NGINX.format(directory=tmp_path, file=file))
            checked = [word.format(file=file, directory=tmp_path) for word in words]
            said = await processes.run(program(name), *checked, HOME=str(tmp_path))
            assert "warn" not in said.lower().replace('"warn"', "") or name == "caddy", said


async def test_what_one_proxy_cannot_tell_apart_is_refused(exits):
    first, second = (directory / "server.toml" for directory in exits.directories)
    original = second.read_text()
    path, other = (
        parse_server(file.read_text()).listen.upstream.path for file in (first, second)
    )  # fmt: skip
    for old, new, sentence in (
        (other, path, "a path must name one exit"),
        (f"port = {exits.inside[1]['upstream']}", f"port = {exits.inside[0]['upstream']}", "both listen on"),
        (other, "/a'b", "proxies may read this one in different ways"),
        ("wss://", "ws://", "the proxy serves wss:// URLs alone"),
        (
            "tls = false",
            'tls = true\ncertificate = "c"\ncertificate_key = "k"',
            "the proxy does TLS.*server init --behind-proxy",
        ),
    ):
        assert old in original
        second.write_text(original.replace(old, new))
        with pytest.raises(ConfigError, match=sentence):
            exits.proxy_config("haproxy")


async def test_an_exit_that_trusts_no_proxy_is_told_how_one_is_made(exits, capsys):
    file = exits.directories[0] / "server.toml"
    text = file.read_text()
    kept = [line for line in text.splitlines() if not line.startswith("trusted_proxies")]
    assert len(kept) < len(text.splitlines())
    file.write_text("\n".join(kept))
    exits.proxy_config("haproxy")
    warned = capsys.readouterr().err
    assert warned.count("trusted_proxies is empty") == 1 and "'htvpn server init --behind-proxy'" in warned


async def test_sessions_of_two_exits_join_behind_haproxy_and_one_restarts_alone(
    exits, processes, connect, echo_server, tmp_path, until
):
    file = tmp_path / "haproxy.cfg"
    exits.proxy_config("haproxy", "--output", file)
    running = [await exits.start(number) for number in range(2)]
    await processes.start(program("haproxy"), "-db", "-f", file)
    for port in exits.public.values():
        await listening(port)
    clients = [await connect(await exits.profile(number)) for number in range(2)]
    users = [client.open(echo_server.port) for client in clients]
    data = secrets.token_bytes(1_000_000)
    for received in await asyncio.gather(*(user.echo(data) for user in users)):
        assert received == data

    (tmp_path / "ca.pem").write_text(exits.authority)
    url = f"https://{HOST}:{exits.public['upstream']}/"
    said = await processes.run("curl", "-sS", "-i", "--cacert", tmp_path / "ca.pem", url)
    assert said.split()[1] == "404"

    running[0].send_signal(signal.SIGTERM)
    await asyncio.wait_for(running[0].wait(), 60)
    await until(lambda: clients[0].connection.state != "connected")
    assert await users[1].echo(data) == data
    await exits.start(0)
    await until(lambda: clients[0].connection.state == "connected")
    assert await clients[0].open(echo_server.port).echo(data) == data
    assert await users[1].echo(data) == data
    assert (clients[1].losses, clients[1].connection.session_number) == (0, 1)


def public_key(exits, number: int) -> str:
    run = parse_key_pair((exits.directories[number] / "exit.key").read_text(), "exit.key")
    return encode_key(run.public)


async def add_to_replica(exits, processes, number: int) -> tuple[str, str]:
    """Admit a client to both exits, one whose own exit is ``number``; return its name and profile."""
    directories = [word for directory in exits.directories for word in ("--dir", directory)]
    for serial in range(64):
        name = f"client-{number}-{serial}"
        text = await processes.run(*HTVPN, "add-client", name, *directories)
        if public_key(exits, number) in text:
            return name, f'{text}\n[tls]\nca = """\n{exits.authority}"""\n'
    raise AssertionError("64 clients have one exit")


async def test_a_client_is_admitted_to_all_exits_that_are_named(exits, processes, tmp_path):
    name, _ = await add_to_replica(exits, processes, 1)
    first, second = (directory / "clients" / f"{name}.toml" for directory in exits.directories)
    assert first.read_text() == second.read_text()
    # When the profile cannot be kept, nobody is admitted.
    words = [word for directory in exits.directories for word in ("--dir", directory)]
    (tmp_path / "taken").touch()
    with pytest.raises(HostError, match="exists already"):
        run_here("add-client", "other", *words, "--output", tmp_path / "taken")
    assert not any((directory / "clients" / "other.toml").exists() for directory in exits.directories)


async def test_replicas_with_one_list_apply_its_changes_while_they_run(
    exits, processes, connect, echo_server, tmp_path, until
):
    shared = exits.directories[0] / "clients"
    (exits.directories[1] / "clients").rmdir()
    (exits.directories[1] / "clients").symlink_to(shared)
    exits.proxy_config("haproxy", "--output", tmp_path / "haproxy.cfg")
    for number in range(2):
        await exits.start(number)
    await processes.start(program("haproxy"), "-db", "-f", tmp_path / "haproxy.cfg")
    for port in exits.public.values():
        await listening(port)
    names, clients = [], []
    for number in range(2):
        name, profile = await add_to_replica(exits, processes, number)
        names.append(name)
        clients.append(await connect(profile))  # the exits have read the list while they run
        assert await clients[-1].open(echo_server.port).echo(b"hello") == b"hello"
    await processes.run(*HTVPN, "remove-client", names[1], "--dir", exits.directories[0])
    await until(lambda: clients[1].connection.state != "connected")
    assert (clients[0].losses, clients[0].connection.session_number) == (0, 1)
