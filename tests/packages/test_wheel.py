"""The wheel in an environment as pipx makes one: units without a source tree, and nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab import machine_tree

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

SOURCE = Path(__file__).parents[2]
PREFIX = "/opt/pipx/venvs/halftunnel-vpn"


@pytest.fixture(scope="module")
def installed(host, tmp_path_factory):
    """The host with the program in PREFIX, from a wheel of this tree; nothing of it is left afterwards."""
    source = tmp_path_factory.mktemp("source")
    for name in ("halftunnel_vpn", "configs", "systemd"):
        shutil.copytree(
            SOURCE / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, source)
    machine = host.machine
    wheels = machine_tree.wheels(SOURCE, machine_tree.python_of(machine.root))
    place = machine.root / "root/wheels"
    shutil.copytree(wheels, place)
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--no-index", "--find-links", str(wheels), "--wheel-dir", str(place), str(source)]
    subprocess.run(argv, check=True, timeout=120)
    machine.run(f"python3 -m venv {PREFIX}", timeout=120)
    machine.run(
        f"{PREFIX}/bin/pip install --quiet --disable-pip-version-check --no-index "
        "--find-links /root/wheels halftunnel-vpn",
        timeout=120,
    )
    yield host
    machine.run("rm -rf /opt/pipx /root/wheels /root/home")


def test_a_program_of_pipx_installs_its_units_and_removes_them(installed):
    machine, htvpn = installed.machine, f"{PREFIX}/bin/htvpn"
    machine.run(f"{htvpn} install client && {htvpn} install server")
    assert machine.run(f"{htvpn} status", check=False).returncode == 3
    unit = machine.run("systemctl show -P ExecStart halftunnel.service").stdout
    assert f"{PREFIX}/bin/python -m halftunnel_vpn.daemon" in unit
    assert machine.run("systemctl is-active halftunnel.service").stdout == "active\n"
    # The distribution's own build, so that the journal gets fields.
    machine.run(f"{PREFIX}/bin/python -c 'import systemd.daemon, systemd.journal'")
    example = machine.run(f"{htvpn} config example client").stdout
    assert example == (SOURCE / "configs/client.toml").read_text()
    machine.run(
        f"{htvpn} server init --dir /var/lib/halftunnel-server --upstream wss://127.0.0.1:4433 "
        "--downstream wss://127.0.0.1:4434 && systemctl enable --now halftunnel-server"
    )
    machine.wait_until("ss -tln | grep -q :4433")
    machine.run(f"{htvpn} uninstall", timeout=120)
    left = "ls -d /etc/halftunnel /var/lib/halftunnel* /run/halftunnel /etc/systemd/system/halftunnel*"
    assert machine.run(left, check=False).stdout == ""
    assert machine.run("getent group halftunnel halftunnel-exit", check=False).stdout == ""
    assert machine.run(f"ls -d {PREFIX}/lib/python3*/site-packages/systemd", check=False).stdout == ""


def test_the_web_page_is_part_of_the_program(installed):
    listed = installed.machine.run(f"ls {PREFIX}/lib/python3*/site-packages/halftunnel_vpn/share/web")
    assert set(listed.stdout.split()) == {
        path.name for path in (SOURCE / "halftunnel_vpn/share/web").iterdir()
    }


def test_a_program_in_a_home_directory_is_refused(installed):
    machine = installed.machine
    machine.run(f"cp -r {PREFIX} /root/home")
    refused = machine.run("/root/home/bin/python -m halftunnel_vpn.cli install client", check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("htvpn: the units do not see /root, where /root/home is; install")
    assert machine.run("systemctl list-unit-files --no-legend 'halftunnel*'", check=False).stdout == ""
