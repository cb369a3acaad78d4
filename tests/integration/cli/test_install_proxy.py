"""`htvpn install proxy`: a unit of the user, which systemd accepts."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from halftunnel_vpn.cli import install_proxy
from halftunnel_vpn.cli.main import main
from halftunnel_vpn.errors import HostError


@pytest.fixture
def user(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def test_the_unit_comes_goes_and_is_one_that_systemd_takes(user, capsys):
    assert main(["install", "proxy"]) == 0
    unit = user / ".config/systemd/user/halftunnel-proxy.service"
    assert "systemctl --user enable --now halftunnel-proxy.service" in capsys.readouterr().out
    text = unit.read_text()
    (command,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    program = command.removeprefix("ExecStart=").split()
    assert shutil.which(program[0]) and program[-1] == "proxy" and "/opt/halftunnel" not in command
    verified = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert "halftunnel-proxy" not in verified.stderr, verified.stderr
    assert main(["uninstall"]) == 0
    assert not unit.exists()


def test_a_proxy_belongs_to_a_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(HostError, match="without sudo"):
        install_proxy.install(None)
