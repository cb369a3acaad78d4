"""Checks of the two paths while no tunnel is up: each URL step by step, then one handshake."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from time import monotonic

from halftunnel_vpn.client.diagnosis.finding import Finding, Outcome, failed, ok, skipped, warning
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.legs.connector import Connector
from halftunnel_vpn.client.legs.early_messages import EarlyMessages
from halftunnel_vpn.client.legs.handshake_sentences import explain
from halftunnel_vpn.client.settings import dial_options
from halftunnel_vpn.client.tunnel_status import without_path
from halftunnel_vpn.config.client import ClientProfile, views
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, RoadError
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.transport.dial import DialOptions, dial

MAX_CHECKED_URLS = 16
"""URLs of one direction that are checked, all at once."""

_STEP_OF = (
    ("name", ("name-",)),
    ("TCP", ("connection-", "connect-", "host-unreachable", "network-unreachable", "mark-", "proxy-")),
    ("TLS", ("certificate-", "tls-", "bytes-before-tls")),
    ("WebSocket", ("",)),
)
"""Step of a dial that fails for a reason which begins so; the first row that fits."""


async def check_exits(profile: ClientProfile) -> list[Finding]:
    """Check the paths to each exit of ``profile``. Where there are several, each finding names its exit."""
    seen = views(profile)
    if len(seen) == 1:
        return await check_paths(profile)
    found = await asyncio.gather(*(check_paths(view) for view in seen))
    return [
        dataclasses.replace(finding, subject=f"exit {view.exit.name}, {finding.subject}")
        for view, findings in zip(seen, found, strict=True)
        for finding in findings
    ]


async def check_paths(profile: ClientProfile) -> list[Finding]:
    """Dial every URL of ``profile``, then make a session and end it. No tunnel is needed and no privilege."""
    counters = Counters()
    resolver = RoadResolver(None, counters)

    def options_of(road: RoadConfig) -> DialOptions:
        # A mark needs CAP_NET_ADMIN, and there is no tunnel that it would lead around.
        return dataclasses.replace(dial_options(profile, road, resolver), mark=None)

    try:
        await resolver.learn()
        connector = Connector(profile, options_of, counters)
        checks = [
            check_url(direction, url, options_of(connector.road(direction)))
            for direction in Direction
            for url in connector.road(direction).urls[:MAX_CHECKED_URLS]
        ]
        found = await asyncio.gather(*checks)
        findings = [finding for steps in found for finding in steps]
        return [*findings, *await _check_session(connector, found)]
    finally:
        resolver.close()


async def check_url(direction: Direction, url: str, options: DialOptions) -> list[Finding]:
    """Return a finding for each step of a dial: name, TCP, TLS, WebSocket."""
    where = f"{direction.name.lower()} {without_path(url)}"
    steps = [step for step, _ in _STEP_OF if step != "TLS" or url.startswith("wss:")]
    times = [monotonic()]
    try:
        leg = await dial(url, options, EarlyMessages(), advanced=lambda: times.append(monotonic()))
    except RoadError as error:
        return _until(where, steps, step_of(error.reason), str(error))
    leg.abort()
    milliseconds = (monotonic() - times[0]) * 1000
    connected = (times[1] - times[0]) * 1000 if len(times) > 1 else milliseconds
    texts = {"TCP": f"connected after {connected:.0f} ms", "WebSocket": f"open after {milliseconds:.0f} ms"}
    return [ok(f"{where}: {step}", texts.get(step, "in order")) for step in steps]


def step_of(reason: str) -> str:
    """Return the step of a dial that fails for ``reason``, which ``transport/dial.py`` lists."""
    for step, beginnings in _STEP_OF:
        if reason.startswith(beginnings):
            return step
    raise AssertionError("the last row fits every reason")


def _until(where: str, steps: Sequence[str], failing: str, sentence: str) -> list[Finding]:
    at = steps.index(failing) if failing in steps else len(steps) - 1
    return [
        *(ok(f"{where}: {step}", "in order") for step in steps[:at]),
        failed(f"{where}: {steps[at]}", sentence),
        *(skipped(f"{where}: {step}", "not tried") for step in steps[at + 1 :]),
    ]


async def _check_session(connector: Connector, urls: Sequence[Sequence[Finding]]) -> list[Finding]:
    """Make a session over the first URLs that work, and end it."""
    subject = "session"
    for direction in Direction:
        name = direction.name.lower()
        own = [steps for steps in urls if steps[0].subject.startswith(name)]
        if all(any(finding.outcome is Outcome.FAILED for finding in steps) for steps in own):
            return [skipped(subject, f"not tried: no {name} URL can be reached")]
    began = monotonic()
    try:
        session = await connector.new_session()
    except HandshakeError as error:
        return [failed(subject, explain(error))]
    except RoadError as error:
        return [failed(subject, _no_answer(error))]
    session.upstream.leg.abort()
    session.downstream.leg.abort()
    milliseconds = (monotonic() - began) * 1000
    notices = connector.clock.notices
    return [
        ok(subject, f"the exit accepts this client (after {milliseconds:.0f} ms)"),
        *(warning("clock", notice) for notice in notices),
        *([] if notices else [ok("clock", "the exit accepts this machine's time")]),
    ]


def _no_answer(error: RoadError) -> str:
    """Name the usual causes: an exit answers neither an unknown client nor one with another exit's key."""
    if error.reason not in ("handshake-timeout", "peer-closed") and not error.reason.startswith("leg-closed"):
        return str(error)
    return (
        "both paths can be reached, but the exit does not answer this client: see whether the exit still "
        "lists it (htvpn server clients), whether [exit] public_key is that of this exit, and whether both "
        "domains lead to the same exit"
    )
