"""What a client exports goes through the tunnel, and nothing of it around it: before, during or after."""

from __future__ import annotations

import json
import sys

import pytest
from lab import Lab
from lab.topology import EXIT, EXIT_UPLINK, TARGET, TARGET_ADDRESS
from lab.tunnel import LabTunnel

pytestmark = pytest.mark.root

PORT = 4318
SPY = f"""
table ip spy {{
    counter around {{ }}
    chain arriving {{
        type filter hook prerouting priority raw;
        iifname {{ "road-a", "road-b" }} ip daddr {TARGET_ADDRESS} counter name around
    }}
}}
"""
ON = {"telemetry": {"enabled": "true", "endpoint": f'"http://{TARGET_ADDRESS}:{PORT}"', "sample": "1"}}


def test_spans_of_a_client_go_through_the_tunnel_alone(no_leftovers, eventually, monkeypatch, tmp_path):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")  # before the tunnel is up, if nothing held them
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    with Lab() as lab:
        spy = tmp_path / "spy.nft"
        spy.write_text(SPY)
        lab.run(EXIT, ["nft", "-f", str(spy)])
        argv = [sys.executable, "-m", "lab.collector", TARGET_ADDRESS, str(PORT)]
        collector = lab.start(TARGET, argv)
        lab.wait_listening(TARGET, PORT)
        tunnel = LabTunnel(lab, server=ON, profile=ON)
        tunnel.start()

        def received() -> list[dict]:
            return [json.loads(line) for line in lab.output(collector).splitlines()]

        def traces(service: str, name: str) -> set[str]:
            spans = [span for each in received() for span in each["spans"]]
            return {trace for of, what, trace in spans if (of, what) == (service, name)}

        eventually(lambda: {each["path"] for each in received()} == {"/v1/traces", "/v1/metrics"})
        eventually(lambda: traces("halftunnel-client", "handshake"))
        assert tunnel.stop_client() == 0, tunnel.client_output()
        assert tunnel.stop_exit() == 0, tunnel.exit_output()
        assert traces("halftunnel-client", "handshake") == traces("halftunnel-exit", "handshake")
        # The export makes streams as well, which both ends trace.
        assert traces("halftunnel-client", "open stream") & traces("halftunnel-exit", "open stream")
        assert {each["peer"] for each in received()} == {EXIT_UPLINK}
        assert "packets 0 bytes 0" in lab.run(EXIT, ["nft", "list", "counter", "ip", "spy", "around"]).stdout
