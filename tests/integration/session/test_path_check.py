"""`htvpn check` against a real exit: each fault of a path is named by a line of its own, and by no other."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable
from typing import Any

import pytest

from halftunnel_vpn.client.diagnosis.finding import Outcome
from halftunnel_vpn.client.diagnosis.path_check import check_exits, check_paths
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.protocol.keys import Direction, KeyPair

UP, DOWN = Direction


def trusting(running_exit: Any, client: Any) -> ClientProfile:
    """The profile of ``client`` with the authorities of the exit in it."""
    roads = {
        direction.name.lower(): dataclasses.replace(road, tls=dataclasses.replace(road.tls, ca=pem))
        for direction, road in ((UP, client.profile.upstream), (DOWN, client.profile.downstream))
        for pem in [running_exit.authorities.pem(running_exit.authority(direction))]
    }
    return dataclasses.replace(client.profile, **roads)


def with_url(profile: ClientProfile, direction: Direction, change: Callable[[str], str]) -> ClientProfile:
    name = direction.name.lower()
    road = getattr(profile, name)
    return dataclasses.replace(
        profile, **{name: dataclasses.replace(road, urls=tuple(change(url) for url in road.urls))}
    )


async def failures(profile: ClientProfile) -> dict[str, str]:
    """What failed, by the last part of its subject."""
    found = await check_paths(profile)
    return {finding.subject: finding.text for finding in found if finding.outcome is Outcome.FAILED}


async def test_a_sound_profile_passes_every_step(running_exit, make_client):
    await running_exit.start()
    found = await check_paths(trusting(running_exit, make_client()))
    assert [finding.outcome for finding in found] == [Outcome.OK] * 10, found
    subjects = [finding.subject.rpartition(": ")[2] for finding in found]
    assert subjects == ["name", "TCP", "TLS", "WebSocket"] * 2 + ["session", "clock"]
    assert not running_exit.dropped
    assert all("/" not in finding.subject.partition("://")[2] for finding in found), "the path is a secret"


async def test_of_several_exits_each_has_its_own_lines(running_exit, make_client):
    await running_exit.start()
    profile = trusting(running_exit, make_client())
    sound = dataclasses.replace(
        profile.exits[0], name="sound", upstream=profile.upstream, downstream=profile.downstream
    )
    lost = dataclasses.replace(sound, name="lost", upstream=with_url(profile, UP, closed_port).upstream)
    found = await check_exits(dataclasses.replace(profile, exits=(sound, lost)))
    failed = [finding.subject for finding in found if finding.outcome is Outcome.FAILED]
    assert len(failed) == 1 and failed[0].startswith("exit lost, upstream") and failed[0].endswith(": TCP")
    assert "exit sound, session" in [finding.subject for finding in found]


def closed_port(url: str) -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"wss://127.0.0.1:{port}/x"


@pytest.mark.parametrize("direction", list(Direction), ids=lambda direction: direction.name.lower())
@pytest.mark.parametrize(
    ("change", "step", "said"),
    [
        (lambda url: "wss://nowhere.invalid/x", "name", "the name nowhere.invalid"),
        (closed_port, "TCP", "nothing listens there"),
        (lambda url: url + "x", "WebSocket", ""),
        (lambda url: url.replace("wss:", "ws:"), "WebSocket", ""),
    ],
    ids=["no-name", "closed-port", "wrong-path", "no-tls"],
)
async def test_a_fault_of_one_url(running_exit, make_client, direction, change, step, said):
    await running_exit.start()
    profile = with_url(trusting(running_exit, make_client()), direction, change)
    found = await failures(profile)
    (subject,) = found
    assert subject.startswith(direction.name.lower()) and subject.endswith(f": {step}")
    assert said in found[subject]


async def test_a_certificate_of_somebody_else(running_exit, make_client):
    await running_exit.start()
    profile = trusting(running_exit, make_client())
    stranger = running_exit.authorities.pem("stranger")
    tls = dataclasses.replace(profile.downstream.tls, ca=stranger)
    profile = dataclasses.replace(profile, downstream=dataclasses.replace(profile.downstream, tls=tls))
    found = await failures(profile)
    (subject,) = found
    assert subject.endswith(": TLS") and "is not trusted" in found[subject]


async def test_a_port_that_does_not_speak_tls(running_exit, make_client):
    await running_exit.start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    profile = with_url(trusting(running_exit, make_client()), UP, lambda url: f"wss://127.0.0.1:{port}/x")
    found = await failures(profile)
    server.close()
    assert [subject.rpartition(": ")[2] for subject in found] == ["TLS"]


@pytest.mark.parametrize("fault", ["removed", "another-exit"])
async def test_an_exit_that_does_not_know_the_client_or_is_another(running_exit, make_client, fault):
    await running_exit.start()
    other = KeyPair(bytes(range(32))).public
    client = make_client(exit_public=other if fault == "another-exit" else None)
    if fault == "removed":
        running_exit.remove("laptop")
        running_exit.reloader.reload()
    found = await failures(trusting(running_exit, client))
    assert list(found) == ["session"]
    assert "does not answer this client" in found["session"]


async def test_nothing_is_asked_of_an_exit_that_cannot_be_reached(running_exit, make_client):
    await running_exit.start()
    profile = with_url(trusting(running_exit, make_client()), UP, closed_port)
    found = await check_paths(profile)
    assert found[-1].outcome is Outcome.SKIPPED
    assert "no upstream URL can be reached" in found[-1].text
