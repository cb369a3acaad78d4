"""A real Prometheus in a host of the lab, which scrapes the exit and the client of a tunnel."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any, Final

from lab.target import WEB_PORT
from lab.topology import CLIENT_A, EXIT, TARGET_ADDRESS, Lab
from lab.tunnel import Edits

PORT: Final = 9090
EXIT_PORT: Final = 9100
CLIENT_PORT: Final = 9101

SCRAPE_INTERVAL: Final = "250ms"

SERVER: Final[Edits] = {
    "metrics": {
        "listen": f'"127.0.0.1:{EXIT_PORT}"',
        "clients": "true",
        "probe": f'"{TARGET_ADDRESS}:{WEB_PORT}"',  # the exit has no way to the Internet
    }
}
PROFILE: Final[Edits] = {"metrics": {"listen": f'"{CLIENT_A}:{CLIENT_PORT}"'}}
"""What makes an exit and a client show their metrics where Prometheus asks for them."""

ALERTS: Final = Path(__file__).parents[2] / "configs" / "prometheus" / "alerts.yml"
BOARD: Final = Path(__file__).parents[2] / "configs" / "grafana" / "halftunnel.json"

_CONFIGURATION: Final = f"""\
global: {{scrape_interval: {SCRAPE_INTERVAL}, scrape_timeout: {SCRAPE_INTERVAL}, evaluation_interval: 1s}}
rule_files: ["{ALERTS}"]
scrape_configs:
  - job_name: halftunnel-exit
    static_configs: [{{targets: ["127.0.0.1:{EXIT_PORT}"]}}]
  - job_name: halftunnel-client
    static_configs: [{{targets: ["{CLIENT_A}:{CLIENT_PORT}"]}}]
"""


class Prometheus:
    """Runs beside the exit; the client answers over a path, as to a connection from outside."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        directory = lab.directory / "prometheus"
        directory.mkdir()
        (directory / "prometheus.yml").write_text(_CONFIGURATION)
        lab.start(
            EXIT,
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{PORT}",
                "--log.level=warn",
            ],
        )
        lab.wait_listening(EXIT, PORT)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query: ``metric`` and ``value`` of each."""
        answer = self._get("query", {"query": expression})
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float:
        """Return the value of an expression that has one series."""
        (series,) = self.query(expression)
        return float(series["value"][1])

    def alerts(self) -> set[str]:
        """Return the names of the alerts that are pending or fire."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts", {})["data"]["alerts"]}

    def _get(self, what: str, arguments: dict[str, str]) -> dict[str, Any]:
        url = f"http://127.0.0.1:{PORT}/api/v1/{what}?{urllib.parse.urlencode(arguments)}"
        answer: dict[str, Any] = json.loads(self._lab.run(EXIT, ["curl", "-sS", "--get", url]).stdout)
        assert answer["status"] == "success", answer
        return answer


def board_expressions(interval: str) -> list[str]:
    """Return every expression of the board, with ``interval`` in place of Grafana's own."""
    panels = json.loads(BOARD.read_text())["panels"]
    return [
        target["expr"].replace("$__rate_interval", interval)
        for panel in panels
        for target in panel["targets"]
    ]
