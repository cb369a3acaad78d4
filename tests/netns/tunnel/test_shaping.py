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
            *(sys.executable, "-m", "halftunnel_vpn.cli", "audit", "record", "--for", "3s"),
            *("--output", str(path), "--socket", str(tunnel.socket)),
        ],
    )
    eventually(lambda: list(tunnel.state_directory.glob("audit-*.jsonl")))
    (log,) = tunnel.state_directory.glob("audit-*.jsonl")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    downloads = -1  # the last one may not have been recorded to its end
    while "the recording has ended" not in tunnel.client_output():
        shown = lab.run(CLIENT, ["sh", "-c", f"curl -gsf {target.file_url} | sha256sum"]).stdout
        assert target.file_sha256 in shown
        downloads += 1
    assert recording.wait(60) == 0, lab.output(recording)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and not log.exists()
    records = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    in_slots = sum(record["slot"] and record["dir"] == "up" for record in records)
    status = tunnel.status()
    assert status is not None
    assert status["shaping"]["mode"] == "strong" and status["shaping"]["slots"] >= in_slots > 0
    assert "shaping     strong" in tunnel.htvpn(CLIENT, "status", "--socket", str(tunnel.socket))
    verdict = json.loads(tunnel.htvpn(CLIENT, "audit", str(path), "--json", check=False))
    a, b, _ = verdict["paths"]
    for scored in (a, b):
        assert scored["off_slot"] == 0 and scored["off_size"] == 0
        assert set(scored["escapes"]) <= {"keepalive", "trickle"}
    assert verdict["mode"] == "strong" and b["bytes_down"] > downloads * SIZE
    assert not [sentence for sentence in verdict["broken"] if "undeclared" in sentence]
    words = path.read_text()
    assert "example" not in words and "198.51" not in words, "neither names nor addresses"
