"""A host with the kill switch ``always``, and everything that may befall it, in random order.

The exit's side of every wire is captured from before the daemon starts until after it has stopped.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from halftunnel_vpn.errors import HostError
from lab.leaks.capture import Captures
from lab.leaks.inbound import Calls
from lab.topology import CLIENT, EXIT, EXIT_A, EXIT_A6, EXIT_B, EXIT_B6, ROAD_A, ROAD_B, Lab
from lab.tunnel import LabTunnel

PROFILE: Final = "laptop"

TRAFFIC_PAUSE: Final = 0.05
"""Seconds between two rounds of traffic of every kind."""

STEP_TIMEOUT: Final = 120.0
"""Seconds in which the host must have come to rest after what befell it."""

_WEIGHTS: Final = {"up": 5}
"""Most of it shall befall a host whose tunnel is up."""

_POLL: Final = 0.05


class Storm:
    """One lab, one exit, one daemon, and what happens to them. :meth:`run`, then look at ``captures``."""

    def __init__(self, lab: Lab, seed: int, say: Callable[[str], None]) -> None:
        self.lab = lab
        self.done: Counter[str] = Counter()
        self.longest = 0.0
        """Seconds of the longest step."""
        self.unfiltered: list[tuple[float, float]] = []
        """From when to when somebody else had taken our packet filter away (since 1970)."""
        self.captures = Captures(lab)
        self.calls = Calls()
        """What became of the connections from outside."""
        self._random = random.Random(seed)
        self._say = say
        self._tunnel = LabTunnel(lab, profile={"protection": {"kill_switch": '"always"'}})
        self._profiles = lab.directory / "profiles"
        self._profiles.mkdir(mode=0o700)
        os.link(self._tunnel.profile, self._profiles / f"{PROFILE}.toml")
        self._daemon: subprocess.Popen[str] | None = None
        self._wanted = False
        self._steps: dict[str, Callable[[], None]] = {
            "up": self._up,
            "down": self._down,
            "daemon killed": self._daemon_killed,
            "daemon restarted": self._daemon_restarted,
            "legs cut": self._legs_cut,
            "exit gone and back": self._exit_gone,
            "default route changed": self._route_changed,
            "no default route for a while": self._route_gone,
            "TUN deleted": self._device_deleted,
            "nft flushed": self._nft_flushed,
            "our table deleted": self._table_deleted,
            "rules flushed": self._rules_deleted,
            "reconnect": self._reconnect,
        }

    def run(self, transitions: int) -> None:
        """Take so many steps, with traffic of every kind all the while; then go down and stop."""
        self._tunnel.start_exit()
        self._start_daemon()
        self._up()
        self._down()  # from here on the kill switch holds, whatever comes
        self.captures.start()
        self.lab.add_outside()
        serving = self._start_inbound(CLIENT, "serve")
        calling = self._start_inbound(EXIT, "call", str(TRAFFIC_PAUSE))
        traffic = self.lab.start(CLIENT, [sys.executable, "-m", "lab.leaks.traffic", str(TRAFFIC_PAUSE)])
        try:
            for number in range(transitions):
                (name,) = self._random.choices(
                    list(self._steps), [_WEIGHTS.get(name, 1) for name in self._steps]
                )
                began = time.monotonic()
                self._steps[name]()
                took = time.monotonic() - began
                self.longest = max(self.longest, took)
                self.done[name] += 1
                self._say(f"{number + 1:4} of {transitions}: {name}, {took:.1f} s, {self._state()}")
            self._down()
            self._stop_daemon(signal.SIGTERM)
        finally:
            self.lab.stop(traffic)
            self.lab.stop(calling)
        self.lab.stop(serving)
        self.captures.stop()
        self.calls = Calls(**json.loads(self.lab.output(calling).splitlines()[-1]))

    def _start_inbound(self, host: str, *words: str) -> subprocess.Popen[str]:
        running = self.lab.start(host, [sys.executable, "-m", "lab.leaks.inbound", *words])
        self._until(lambda: bool(self.lab.output(running)), f"the {words[0]}r of connections does not start")
        return running

    # --- what befalls it --------------------------------------------------------------------------

    def _up(self) -> None:
        self._htvpn("up", PROFILE)
        self._wanted = True
        self._at_rest()

    def _down(self) -> None:
        self._htvpn("down", check=False)
        self._wanted = False
        self._at_rest()

    def _reconnect(self) -> None:
        self._htvpn("reconnect", check=False)
        self._at_rest()

    def _daemon_killed(self) -> None:
        self._stop_daemon(signal.SIGKILL)
        time.sleep(self._random.random() * 0.3)
        self._start_daemon()
        self._at_rest()

    def _daemon_restarted(self) -> None:
        self._stop_daemon(signal.SIGTERM)
        self._start_daemon()
        self._at_rest()

    def _legs_cut(self) -> None:
        for road in self._random.sample((ROAD_A, ROAD_B), self._random.choice((1, 2))):
            self.lab.lose(EXIT, road, 1000)
            time.sleep(self._random.random() * 0.3)
            self.lab.lose(EXIT, road, 0)
        self._at_rest()

    def _exit_gone(self) -> None:
        assert self._tunnel.exit is not None
        self._tunnel.exit.send_signal(self._random.choice((signal.SIGKILL, signal.SIGTERM)))
        self._tunnel.exit.wait()
        time.sleep(self._random.random())
        self._tunnel.start_exit()
        self._at_rest()

    def _route_changed(self) -> None:
        """The way out is now the other link, as when a cable is pulled and Wi-Fi takes over."""
        device, *gateways = self._random.choice(((ROAD_A, EXIT_A, EXIT_A6), (ROAD_B, EXIT_B, EXIT_B6)))
        for gateway in gateways:
            self._ip("route", "replace", "default", "via", gateway, "dev", device)
        self._at_rest()

    def _route_gone(self) -> None:
        for family in ("-4", "-6"):
            self._ip(family, "route", "del", "default", check=False)
        time.sleep(self._random.random() * 0.5)
        for gateway in (EXIT_A, EXIT_A6):
            self._ip("route", "replace", "default", "via", gateway, "dev", ROAD_A)
        self._at_rest()

    def _device_deleted(self) -> None:
        self._ip("link", "delete", "dev", "htvpn0", check=False)
        self._at_rest()

    def _nft_flushed(self) -> None:
        self._take_filter_away("flush", "ruleset")

    def _table_deleted(self) -> None:
        self._take_filter_away("delete", "table", "inet", "halftunnel")

    def _take_filter_away(self, *words: str) -> None:
        began = time.time()
        self.lab.run(CLIENT, ["nft", *words])
        self._until(self._is_filtering, "the packet filter does not come back")
        self.unfiltered.append((began, time.time()))
        self._at_rest()

    def _rules_deleted(self) -> None:
        for family in ("-4", "-6"):
            self._ip(family, "rule", "flush", check=False)
            for priority, table in ((32766, "main"), (32767, "default")):
                self._ip(family, "rule", "add", "lookup", table, "priority", str(priority), check=False)
        self._at_rest()

    # --- the daemon -------------------------------------------------------------------------------

    def _start_daemon(self) -> None:
        argv = [sys.executable, "-m", "halftunnel_vpn.daemon", "--profiles", str(self._profiles)]
        self._daemon = self.lab.start(
            CLIENT,
            [*argv, "--socket", str(self._tunnel.socket)],
            env={"STATE_DIRECTORY": str(self._tunnel.state_directory)},
        )
        self._until(lambda: self._status() is not None, "the daemon does not answer")

    def _stop_daemon(self, number: signal.Signals) -> None:
        assert self._daemon is not None
        self._daemon.send_signal(number)
        self._daemon.wait(STEP_TIMEOUT)

    def _at_rest(self) -> None:
        """Return when the daemon is where it is wanted and says that its protection is in place."""
        wanted = "connected" if self._wanted else "disconnected"

        def rests() -> bool:
            status = self._status()
            return status is not None and status["state"] == wanted and bool(status["protection"]["verified"])

        self._until(rests, f"the daemon does not come to be {wanted} and protected")

    def _is_filtering(self) -> bool:
        listing = ["nft", "list", "chain", "inet", "halftunnel", "guard_output"]
        return self.lab.run(CLIENT, listing, check=False).returncode == 0

    def _state(self) -> str:
        status = self._status()
        return "no daemon" if status is None else str(status["state"])

    def _status(self) -> dict[str, Any] | None:
        status = self._tunnel.status()
        return status if status is not None and "protection" in status else None

    def _until(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + STEP_TIMEOUT
        while not condition():
            if time.monotonic() > deadline:
                log = "" if self._daemon is None else self.lab.output(self._daemon)[-4000:]
                raise HostError(f"After {dict(self.done)}, {complaint}:\n{log}")
            time.sleep(_POLL)

    def _htvpn(self, *arguments: str, check: bool = True) -> str:
        return self._tunnel.htvpn(CLIENT, *arguments, "--socket", str(self._tunnel.socket), check=check)

    def _ip(self, *arguments: str, check: bool = True) -> None:
        self.lab.run(CLIENT, ["ip", *arguments], check=check)
