"""A real exit with its web page, a real client without root, and Chromium: one of each for all tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from halftunnel_vpn.control import requests
from halftunnel_vpn.control.web.login_route import WEB_LOGIN_PATH

CHROMIUM = "/usr/bin/chromium"
SECONDS = 60.0


def run_htvpn(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "halftunnel_vpn.cli", *words]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=120)


class Answer:
    """The answer to a request that a test has written itself."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = dict(response.getheaders())
        self.body = response.read()

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


class WebExit:
    """An exit as a process of its own."""

    def __init__(self, directory: Path, ports: list[int]) -> None:
        self.directory = directory
        self.port, self.metrics = ports[2:]
        self.log = directory.parent / "exit.log"
        made = run_htvpn(
            "server", "init", "--dir", str(directory),
            "--upstream", f"wss://127.0.0.1:{ports[0]}", "--downstream", f"wss://localhost:{ports[1]}",
            "--listen-upstream", f"127.0.0.1:{ports[0]}", "--listen-downstream", f"127.0.0.1:{ports[1]}",
            "--dns", "127.0.0.1", "--allow-egress", "127.0.0.0/8",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        self._configuration = (directory / "server.toml").read_text()
        self.process: subprocess.Popen[bytes]

    def start(self, listen: str) -> None:
        """Run it with its page at ``listen``."""
        text = f'[web]\nlisten = "{listen}"\n[metrics]\nlisten = "127.0.0.1:{self.metrics}"\n'
        (self.directory / "server.toml").write_text(f"{self._configuration}\n{text}")
        argv = [sys.executable, "-m", "halftunnel_vpn.cli", "server", "run", "--dir", str(self.directory)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def token(self) -> str:
        """Return a token, as `htvpn server web` gets it."""
        answer = requests.command(str(self.directory / "control.sock"), "POST", WEB_LOGIN_PATH)
        assert answer is not None
        return str(answer["token"])

    def address(self) -> str:
        """Return an address that logs in."""
        return f"http://127.0.0.1:{self.port}/#token={self.token()}"

    def ask(
        self,
        method: str,
        path: str,
        content: object = None,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send what a browser would send from the page, with other ``headers``."""
        host = f"127.0.0.1:{self.port}"
        sent = {"Host": host, "Origin": f"http://{host}", "Content-Type": "application/json"}
        sent = {name: value for name, value in (sent | (headers or {})).items() if value}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            payload = body if body is not None or content is None else json.dumps(content).encode()
            connection.request(method, path, payload, headers=sent)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def logged_in(self) -> dict[str, str]:
        """Return the headers of a new session."""
        answer = self.ask("POST", "/api/login", {"token": self.token()})
        assert answer.status == 200, answer.body
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return {"Cookie": cookie, "X-Htvpn-Code": json.loads(answer.body)["code"]}

    def dropped(self, reason: str) -> int:
        """Return how often the exit has refused something for ``reason``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=SECONDS)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        found = re.search(rf'halftunnel_dropped_total\{{component="exit",reason="{reason}"\}} (\S+)', text)
        return 0 if found is None else int(float(found[1]))

    def processor_time(self) -> float:
        """Return the seconds that all its threads have had a processor."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def wait_until_it_runs(self) -> None:
        """Wait for its log to say that it is ready."""
        deadline = time.monotonic() + SECONDS
        while "is ready" not in self.log.read_text():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, and look whether it has ended cleanly."""
        self.process.terminate()
        assert self.process.wait(30) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()


@contextlib.contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Hold ports of loopback on which nothing listens."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            sock = held.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
        yield ports


@pytest.fixture(scope="session")
def web_exit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebExit]:
    with free_ports(4) as ports:
        made = WebExit(tmp_path_factory.mktemp("web") / "x", ports)
        assert run_htvpn("server", "add-client", "known", "--dir", str(made.directory)).returncode == 0
        made.start(f"127.0.0.1:{made.port}")
        try:
            made.wait_until_it_runs()
            yield made
        finally:
            made.stop()


@pytest.fixture
def another_exit(tmp_path: Path) -> Iterator[WebExit]:
    """An exit that is still to be started, and to be stopped by the test."""
    with free_ports(4) as ports:
        made = WebExit(tmp_path / "x", ports)
        yield made
        made.process.kill()
        made.process.wait()


@pytest.fixture(scope="session")
def htvpn() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command."""
    return run_htvpn


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium for one file: while playwright runs, its event loop is that of this thread."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield made
        made.close()


MakeContext = Callable[..., BrowserContext]


@pytest.fixture
def make_context(browser: Browser) -> Iterator[MakeContext]:
    made: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        made.append(browser.new_context(**options))
        made[-1].set_default_timeout(SECONDS * 1000)
        return made[-1]

    yield make
    for context in made:
        context.close()


@pytest.fixture
def page(make_context: MakeContext) -> Iterator[Page]:
    """A page in a context of its own. What it writes to the console as an error, or blocks, is a failure."""
    page = make_context().new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    # A refusal by the exit is shown in the page, and by the browser in its console.
    assert [text for text in complaints if "the server responded with a status of" not in text] == []
