"""When a change of the network is one, and when the host has slept."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from halftunnel_vpn.client.host import host_watch
from halftunnel_vpn.client.host.host_keeper import HostKeeper
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host import Host
from halftunnel_vpn.host.kernel.fake import FakeKernel
from halftunnel_vpn.host.kernel.network_monitor import SuspendWatch, Way, changed

HOME = Way("wlan0", "192.168.1.1", frozenset({"192.168.1.7"}))
CABLE = Way("eth0", "192.168.1.1", frozenset({"192.168.1.8"}))


def test_another_way_is_a_change_and_no_way_is_none() -> None:
    assert not changed({"203.0.113.1": HOME}, {"203.0.113.1": HOME})
    assert changed({"203.0.113.1": HOME}, {"203.0.113.1": CABLE})
    assert not changed({"203.0.113.1": HOME}, {"203.0.113.1": None}), "there is nothing to move to"
    assert changed({"203.0.113.1": None}, {"203.0.113.1": HOME}), "it is back"
    assert not changed({}, {"203.0.113.1": HOME}), "seen for the first time"


def test_sleep_shows_between_the_two_clocks() -> None:
    clocks = {"boottime": 100.0, "monotonic": 90.0}
    watch = SuspendWatch(lambda: clocks["boottime"], lambda: clocks["monotonic"])
    clocks.update(boottime=160.0, monotonic=150.5)  # busy, and read one after the other
    assert watch.slept() == 0.0
    clocks.update(boottime=3760.0, monotonic=151.0)
    assert watch.slept() == 3599.5
    assert watch.slept() == 0.0


async def test_a_question_that_the_kernel_does_not_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers: list[HostError | dict[str, Way | None]] = [
        {"192.0.2.1": HOME},
        HostError("The kernel cannot be asked about the network now (Too many open files)."),
        HostError("The kernel cannot be asked about the network now (Too many open files)."),
        {"192.0.2.1": CABLE},
    ]

    def ways(places: object, mark: int) -> dict[str, Way | None]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]  # the last one stays true
        if isinstance(answer, HostError):
            raise answer
        return answer

    class Silent:
        """A monitor that says something once."""

        def __init__(self) -> None:
            ours, self.kernel = socket.socketpair()
            self.ours, self.fd = ours, ours.fileno()
            self.kernel.send(b"changed")

        def drain(self) -> bool:
            return bool(self.ours.recv(100))

        def close(self) -> None:
            self.ours.close()
            self.kernel.close()

    moved, learnt = asyncio.Event(), asyncio.Event()

    async def learn(servers: object) -> None:
        learnt.set()

    monkeypatch.setattr(host_watch, "ways", ways)
    monkeypatch.setattr(host_watch, "NetworkMonitor", Silent)
    monkeypatch.setattr(host_watch, "TICK", 0.01)
    monkeypatch.setattr(host_watch, "DEBOUNCE", 0.0)
    counters = Counters()
    host = Host(tmp_path, resolv_conf=tmp_path / "resolv.conf", kernel=FakeKernel(tmp_path / "kernel"))
    watch = host_watch.HostWatch(
        cast(
            "Any",
            SimpleNamespace(routes=SimpleNamespace(mark=1), dns=SimpleNamespace(mode="off", takeover="mend")),
        ),
        HostKeeper(host, counters),
        cast("Any", SimpleNamespace(legs=list, reconnect=moved.set)),
        cast("Any", SimpleNamespace(learn=learn)),
        cast("Any", SimpleNamespace(clock=lambda: 0.0)),
        counters,
        lambda: False,
    )
    running = asyncio.ensure_future(watch.run())
    try:
        async with asyncio.timeout(30):
            await moved.wait()
            await learnt.wait()
        assert not running.done()
        assert counters.counted["host-watch-failures"] == 2
    finally:
        await watch.stop()
