"""Loads pages in headless Chromium: `python -m lab.audit.browser`. Orders and answers as lab.audit.fetcher.

Each load has a browser context of its own, as a fresh profile: no cache, no connection and no name is left of
an earlier one. The DevTools protocol is spoken over a pipe.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, Final

from halftunnel_vpn.errors import HostError

LOAD_TIMEOUT: Final = 30.0
"""Seconds after which a load has failed."""

START_TIMEOUT: Final = 60.0

OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-features=DnsOverHttps,OptimizationHints,MediaRouter,Translate",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-pipe",
)


class Browser:
    """One Chromium; a context manager. Raises HostError when it does not answer.

    ``pin``: the one key whose certificates it accepts from an unknown authority, as
    --ignore-certificate-errors-spki-list takes it; without it any certificate is accepted.
    """

    def __init__(self, *, pin: str = "") -> None:
        program = shutil.which("chromium")
        if program is None:
            raise HostError("Chromium is not installed: install the package chromium.")
        self._profile = tempfile.TemporaryDirectory(prefix="audit-chromium-", ignore_cleanup_errors=True)
        orders, self._orders = os.pipe()
        self._events, events = os.pipe()
        accept = f"--ignore-certificate-errors-spki-list={pin}" if pin else "--ignore-certificate-errors"
        argv = [program, *OPTIONS, accept, f"--user-data-dir={self._profile.name}"]
        # the browser reads from descriptor 3 and writes to descriptor 4
        shell = ["bash", "-c", f'exec 5<&{orders} 6>&{events}; exec "$@" 3<&5 4>&6 5<&- 6>&-', "bash"]
        self._process = subprocess.Popen(
            [*shell, *argv],
            pass_fds=(orders, events),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(orders)
        os.close(events)
        self._buffer = b""
        self._number = 0
        self._messages: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._orders)
        os.close(self._events)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def version(self) -> str:
        """Return the name and version of the browser."""
        return str(self._call("Browser.getVersion", {}, timeout=START_TIMEOUT)["product"])

    def load(self, url: str) -> dict[str, Any]:
        """Load a page in a context of its own, and answer as :mod:`lab.audit.fetcher` does."""
        context = self._call("Target.createBrowserContext", {})["browserContextId"]
        try:
            about = {"url": "about:blank", "browserContextId": context}
            target = self._call("Target.createTarget", about)["targetId"]
            attach = {"targetId": target, "flatten": True}
            session = self._call("Target.attachToTarget", attach)["sessionId"]
            self._call("Page.enable", {}, session)
            began, start = time.time(), time.monotonic()
            answer = self._call("Page.navigate", {"url": url}, session)
            error = answer.get("errorText")
            if error is None and not self._event("Page.loadEventFired", session, start + LOAD_TIMEOUT):
                error = "the page did not load in time"
            seconds = time.monotonic() - start
            count = "performance.getEntriesByType('resource').filter(e => e.responseEnd > 0).length"
            found = self._call("Runtime.evaluate", {"expression": count, "returnByValue": True}, session)
            resources = found.get("result", {}).get("value", 0)
        finally:
            self._call("Target.disposeBrowserContext", {"browserContextId": context})
            self._messages.clear()
        return {"began": began, "seconds": seconds, "resources": resources, "bytes": 0, "error": error}

    def _call(
        self,
        method: str,
        parameters: dict[str, Any],
        session: str | None = None,
        timeout: float = LOAD_TIMEOUT,
    ) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._orders, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            for at, answer in enumerate(self._messages):
                if answer.get("id") == self._number:
                    del self._messages[at]
                    if "error" in answer:
                        raise HostError(f"Chromium refused {method}: {answer['error'].get('message')}")
                    return dict(answer["result"])
            if not self._receive(deadline):
                raise HostError(f"Chromium did not answer {method}.")

    def _event(self, method: str, session: str, deadline: float) -> bool:
        while not any(m.get("method") == method and m.get("sessionId") == session for m in self._messages):
            if not self._receive(deadline):
                return False
        return True

    def _receive(self, deadline: float) -> bool:
        """Read what has come, at least one piece; False once the deadline is over."""
        ready, _, _ = select.select([self._events], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        piece = os.read(self._events, 1 << 16)
        if not piece:
            raise HostError("Chromium ended.")
        *whole, self._buffer = (self._buffer + piece).split(b"\0")
        self._messages += [json.loads(message) for message in whole]
        return True


def main() -> None:
    """Answer orders until standard input ends."""
    with Browser() as browser:
        browser.version()
        for line in sys.stdin:
            site = json.loads(line)["site"]
            print(json.dumps(browser.load(f"https://{site['host']}{site['path']}")), flush=True)


if __name__ == "__main__":
    main()
