"""Exits, clients and the processes of a measurement, in a directory and on loopback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.cli.arguments import build_parser
from halftunnel_vpn.config import writing
from halftunnel_vpn.config.server import parse_server
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.protocol.keys import KeyPair, encode_key
from lab.tunnel import edit

HTVPN: Final = (sys.executable, "-m", "halftunnel_vpn.cli")

HOST: Final = "127.0.0.1"

ONE_ADDRESS: Final = {
    "connections_per_peer": "4096",
    "arrivals_per_peer": "4096",
    "arrivals": "4096",
    "strangers_per_peer": "4096",
    "strangers": "4096",
}
"""[limits] of an exit whose clients all have one address, and which join as fast as they can."""

START_TIMEOUT: Final = 60.0
END_TIMEOUT: Final = 30.0


class Place:
    """Owns the processes; a context manager that ends them. ``package``: the directory of another build."""

    def __init__(self, directory: Path, package: Path | None = None) -> None:
        self.directory = directory
        self._environment = dict(os.environ)
        if package is not None:
            self._environment |= {"PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
        self._stack = ExitStack()
        self._log = directory / "output.log"

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def htvpn(self, *words: object) -> str:
        """Return what `htvpn WORDS` prints. Raises HostError."""
        done = subprocess.run(
            [*HTVPN, *map(str, words)], capture_output=True, text=True, timeout=START_TIMEOUT, check=False
        )
        if done.returncode:
            raise HostError(f"htvpn {' '.join(map(str, words))} failed: {done.stderr.strip()}")
        return done.stdout

    def htvpn_here(self, *words: object) -> None:
        """Run a command in this process, because a new one for each of many takes long. Raises HostError."""
        options = build_parser().parse_args(list(map(str, words)))
        with contextlib.redirect_stdout(io.StringIO()):
            code = options.run(options)
        if code:
            raise HostError(f"htvpn {' '.join(map(str, words))} failed")

    def make_exit(self, name: str, *words: object) -> Path:
        """Make the directory of an exit on two free ports. ``words`` are more of `server init`."""
        directory = self.directory / name
        inside = {direction: free_port() for direction in ("upstream", "downstream")}
        listen: list[object] = []
        for direction, port in inside.items():
            listen += [f"--listen-{direction}", f"{HOST}:{port}"]
            if f"--{direction}" not in words:
                listen += [f"--{direction}", f"wss://{HOST}:{port}"]
        egress = ["--allow-egress", "127.0.0.0/8", "--dns", HOST]
        self.htvpn("server", "init", "--dir", directory, *listen, *egress, *words)
        trusted = {"trusted_proxies": f'["{HOST}"]'} if "--behind-proxy" in words else {}
        edit(directory / "server.toml", {"limits": ONE_ADDRESS, "listen": trusted})
        return directory

    def make_clients(self, directory: Path, number: int, prefix: str = "c") -> list[Path]:
        """Admit clients to the exit in ``directory``; return their profiles."""
        first = self.htvpn("server", "add-client", f"{prefix}0", "--dir", directory)
        made = []
        for serial in range(number):
            profile = self.directory / f"{directory.name}-{prefix}{serial}.toml"
            text = first
            if serial:
                keys = KeyPair(secrets.token_bytes(32))
                entry = {"name": f"{prefix}{serial}", "public_key": encode_key(keys.public)}
                (directory / "clients" / f"{prefix}{serial}.toml").write_text(writing.render(entry))
                key = f'private_key = "{encode_key(keys.private)}"'
                text = re.sub(r'^private_key = ".*"$', lambda _: key, text, flags=re.MULTILINE)  # noqa: B023
            profile.touch(mode=0o600)
            profile.write_text(text)
            made.append(profile)
        return made

    def start_exit(self, directory: Path) -> subprocess.Popen[str]:
        """Start an exit and wait until it listens. Raises HostError."""
        words = [*HTVPN, "server", "run", "--dir", str(directory), "--log-level", "warning"]
        process = self._start(words)
        for port in ports_of(directory):
            if not is_listening(port, process):
                raise HostError(f"the exit does not listen on port {port}:\n{self._log.read_text()}")
        return process

    def start_destination(self) -> int:
        """Start the destination; return its port."""
        words = [sys.executable, "-m", "lab.scale.destination"]
        process = self._start(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        return int(process.stdout.readline())

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Start another program."""
        return self._start(list(map(str, words)))

    def start_drivers(self, port: int, profiles: Sequence[Path], processes: int) -> Drivers:
        """Start processes that share the clients of ``profiles``."""
        parts = [profiles[number::processes] for number in range(min(processes, len(profiles)))]
        words = [sys.executable, "-m", "lab.scale.driver", str(port)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        drivers = Drivers([self._start([*words, *map(str, part)], **pipes) for part in parts], self._log)
        drivers.wait_ready()
        return drivers

    def _start(self, words: list[str], **pipes: Any) -> subprocess.Popen[str]:
        log = self._stack.enter_context(self._log.open("a"))
        options = {"stdout": log, "stderr": log, "text": True, "env": self._environment, **pipes}
        process: subprocess.Popen[str] = subprocess.Popen(words, **options)
        self._stack.callback(end, process)
        return process


class Drivers:
    """The processes of the clients. Each command goes to all of them at once."""

    def __init__(self, processes: list[subprocess.Popen[str]], log: Path) -> None:
        self._processes = processes
        self._log = log

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._processes]

    def begin(self, command: str, **arguments: object) -> None:
        """Give a command to all processes."""
        self._tell(command, [arguments] * len(self._processes))

    def _tell(self, command: str, arguments: Sequence[Mapping[str, object]]) -> None:
        for process, values in zip(self._processes, arguments, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps({"do": command, **values}) + "\n")
            process.stdin.flush()

    def answers(self) -> list[dict[str, Any]]:
        """Wait for the answers to the last command. Raises HostError if a process has ended."""
        return [json.loads(line) for line in self._lines()]

    def wait_ready(self) -> None:
        """Wait until all processes take commands. Raises HostError."""
        for _ in self._lines():
            pass

    def _lines(self) -> Iterator[str]:
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise HostError(f"a process of the clients has ended:\n{self._log.read_text()}")
            yield line

    def do(self, command: str, **arguments: object) -> list[dict[str, Any]]:
        """Give a command and wait for the answers."""
        self.begin(command, **arguments)
        return self.answers()

    def do_each(self, command: str, arguments: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """Give a command with other arguments for each process, and wait for the answers."""
        self._tell(command, arguments)
        return self.answers()


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.create_server((HOST, 0)) as one:
        port: int = one.getsockname()[1]
        return port


def ports_of(directory: Path) -> list[int]:
    """Return the ports of both listeners of an exit."""
    listen = parse_server((directory / "server.toml").read_text()).listen
    return [listen.upstream.port, listen.downstream.port]


def is_listening(port: int, process: subprocess.Popen[str]) -> bool:
    """Wait until ``process`` accepts connections; return False if it does not."""
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def end(process: subprocess.Popen[str]) -> None:
    """End a process as a service manager does."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
