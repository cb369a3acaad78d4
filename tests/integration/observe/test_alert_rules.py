"""The alerts under promtool: each fires after its time and not before."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

RULES = Path(__file__).parents[3] / "configs" / "prometheus" / "alerts.yml"
CASES = Path(__file__).parent / "alert_rules.yml"


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_alert_fires_after_its_time_and_not_before():
    assert "8 rules found" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


def test_each_alert_has_a_case():
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    fires = re.findall(r"alertname: (\w+)\n +exp_alerts:\n", CASES.read_text())
    assert set(fires) == alerts
