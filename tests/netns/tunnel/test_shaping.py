"""Both directions of a real tunnel on clocks, and what its own log says of that."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable

import pytest
from lab import Lab
from lab.target import start_target
from lab.topology import CLIENT
from lab.tunnel import LabTunnel

pytestmark = pytest.mark.root

SIZE = 300_000


def test_a_strong_tunnel_carries_everything_and_its_log_keeps_the_promise(
    lab: Lab, eventually: Callable[..., None]
) -> None:
    target = start_target(lab, file_size=SIZE)
    tunnel = LabTunnel(lab, profile={"shaping": {"mode": '"strong"'}})
    tunnel.start()
    path = lab.directory / "log.jsonl"
    recording = lab.start(
        CLIENT,
        [
            *(sys.executable, "-m", "halftunnel_vpn.cli", "audit", "record", "--for", "5s"),
            *("--output", str(path), "--socket", str(tunnel.socket)),
        ],
    )
    eventually(lambda: list(tunnel.state_directory.glob("audit-*.jsonl")))
    (log,) = tunnel.state_directory.glob("audit-*.jsonl")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    for _ in range(3):
        shown = lab.run(CLIENT, ["sh", "-c", f"curl -gsf {target.file_url} | sha256sum"]).stdout
        assert target.file_sha256 in shown
    assert recording.wait(60) == 0, lab.output(recording)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and not log.exists()
    assert "the recording has ended" in tunnel.client_output()
    status = tunnel.status()
    assert status is not None
    assert status["shaping"]["mode"] == "strong" and status["shaping"]["slots"] > 100
    assert "shaping     strong" in tunnel.htvpn(CLIENT, "status", "--socket", str(tunnel.socket))
    verdict = json.loads(tunnel.htvpn(CLIENT, "audit", str(path), "--json", check=False))
    a, b, _ = verdict["paths"]
    for scored in (a, b):
        assert scored["off_slot"] == 0 and scored["off_size"] == 0
        assert set(scored["escapes"]) <= {"keepalive", "trickle"}
    assert verdict["mode"] == "strong" and b["bytes_down"] > 3 * SIZE
    assert not [sentence for sentence in verdict["broken"] if "undeclared" in sentence]
    words = path.read_text()
    assert "example" not in words and "198.51" not in words, "neither names nor addresses"
