"""A whole tunnel in namespaces of its own, real traffic through it, and a verdict."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from halftunnel_vpn.errors import HostError
from lab import Lab, Target, start_target
from lab.demo import checks
from lab.demo.report import Verdict, print_traffic, print_verdicts
from lab.demo.traffic import Traffic, measure
from lab.topology import CLIENT, DOMAIN_A, DOMAIN_B, EXIT, EXIT_A, EXIT_B, TARGET_ADDRESS
from lab.tunnel import LabTunnel

WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""setpriv(1): the exit runs without a single privilege, as it may everywhere."""

SCRIPT = Path(__file__).parents[3] / "scripts" / "demo"

KEPT = """
It stays up. Look around as the client, whose whole traffic is in the tunnel:
    sudo ip netns exec {client} bash
and from there, for example:
    curl -o /dev/null {url}
    {status}
The exit is {exit}, the target {target}; profile, configuration and logs are in {directory}.
Remove everything:
    sudo {remove}"""


def main(arguments: Sequence[str]) -> int:
    """Return exit code 0 when every verdict is good, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it up afterwards, and say how to enter")
    parser.add_argument("--remove", action="store_true", help="only remove what an earlier --keep left")
    options = parser.parse_args(arguments)
    try:
        return _run(keep=options.keep, remove=options.remove)
    except HostError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _run(*, keep: bool, remove: bool) -> int:
    removed = Lab.sweep()
    if remove:
        print(f"removed {len(removed)} namespaces" if removed else "there was nothing to remove")
        return 0
    began = time.monotonic()
    with Lab() as lab:
        demo = Demo(lab)
        demo.set_up()
        verdicts = list(demo.verdicts())
        if not keep:
            verdicts += demo.tear_down()
        print_traffic(demo.traffic)
        good = print_verdicts(verdicts, time.monotonic() - began)
        if not good:
            demo.print_logs()
        if keep:
            lab.keep()
            demo.tell_how_to_enter()
    return 0 if good else 1


class Demo:
    """One run of the demo in ``lab``."""

    def __init__(self, lab: Lab) -> None:
        self.traffic: dict[str, Traffic] = {}
        self._lab = lab
        self._target: Target
        self._tunnel: LabTunnel
        self._host_before = ""
        self._reached_before = True

    def set_up(self) -> None:
        """Target, exit and client, up to the status `connected`. Raises HostError."""
        lab = self._lab
        say("three hosts in network namespaces: client, exit, target")
        self._target = start_target(lab)
        self._reached_before = checks.reaches(lab, TARGET_ADDRESS)
        self._host_before = checks.host_state(lab)
        say(f"exit: domain A {DOMAIN_A} on {EXIT_A}, domain B {DOMAIN_B} on {EXIT_B}")
        tunnel = self._tunnel = LabTunnel(lab)
        tunnel.start_exit(wrapper=WITHOUT_CAPABILITIES)
        say(f"client: htvpn up {tunnel.profile} --foreground")
        tunnel.start_client()
        tunnel.wait_connected()

    def verdicts(self) -> Iterator[Verdict]:
        """Everything that is tried through the tunnel, one after the other."""
        lab, target = self._lab, self._target
        yield Verdict(
            "the tunnel is the only way",
            not self._reached_before,
            "before it was up, the client could not reach the target",
        )
        say("traffic: dig, ping, curl of 100 MB by IPv4 and IPv6, an upload of 100 MB")
        yield from checks.names(lab)
        yield from checks.pings(lab)
        transfers: dict[str, Callable[[], Verdict]] = {
            "100 MB download, IPv4": partial(checks.download, lab, target, version=4),
            "100 MB download, IPv6": partial(checks.download, lab, target, version=6),
            "100 MB upload, IPv4": partial(checks.upload, lab, target),
        }
        for title, check in transfers.items():
            before = measure(lab, str(self._tunnel.socket))
            yield check()
            self.traffic[title] = measure(lab, str(self._tunnel.socket)) - before
        yield from checks.splits(self.traffic)

    def tear_down(self) -> Iterator[Verdict]:
        """`htvpn down`, and a look at what it left."""
        returned = self._tunnel.down()
        after = checks.host_state(self._lab)
        yield Verdict(
            "the client's host is as it was",
            returned == 0 and after == self._host_before,
            "addresses, routes, rules, firewall and resolver compared after htvpn down",
        )

    def print_logs(self) -> None:
        """The logs of both ends: something went wrong."""
        print(f"\nlog of the exit:\n{self._tunnel.exit_output()}")
        print(f"\nlog of the client:\n{self._tunnel.client_output()}")

    def tell_how_to_enter(self) -> None:
        """What to type into a shell to look around."""
        htvpn = Path(sys.executable).with_name("htvpn")
        print(
            KEPT.format(
                client=self._lab.namespace(CLIENT),
                exit=self._lab.namespace(EXIT),
                target=self._lab.namespace("target"),
                url=self._target.file_url,
                status=f"{htvpn} status --socket {self._tunnel.socket}",
                directory=self._lab.directory,
                remove=f"{SCRIPT} --remove",
            )
        )


def say(what: str) -> None:
    """Tell how far the demo has come."""
    print(f"... {what}", flush=True)
