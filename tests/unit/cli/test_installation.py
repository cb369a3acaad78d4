"""The three ways in which the program is installed, and what each says."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

from halftunnel_vpn.cli import daemon_process, demo, install, installation
from halftunnel_vpn.errors import HostError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def from_tree(monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(ROOT / ".venv"))


@pytest.fixture
def from_wheel(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", "/opt/pipx/venvs/halftunnel-vpn")
    monkeypatch.setattr("halftunnel_vpn.__file__", str(tmp_path / "site-packages/halftunnel_vpn/__init__.py"))


@pytest.fixture
def from_package(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", "/usr/lib/halftunnel")
    monkeypatch.setattr("halftunnel_vpn.__file__", str(tmp_path / "site/halftunnel_vpn/__init__.py"))


def test_the_source_tree_names_its_script(from_tree):
    assert installation.how_to_install("client") == f"{ROOT}/scripts/install client"


def test_a_wheel_names_its_own_command(from_wheel):
    assert installation.how_to_install("server") == "/opt/pipx/venvs/halftunnel-vpn/bin/htvpn install server"


def test_a_package_names_the_package(from_package):
    assert installation.how_to_install("client") == "apt install halftunnel-client"


@pytest.mark.parametrize("way", ["from_wheel", "from_package"])
def test_without_a_source_tree_the_demo_says_where_it_is(way, request):
    request.getfixturevalue(way)
    with pytest.raises(HostError, match="the demo needs the source tree, which is not part of an installed"):
        demo.run(Namespace(keep=False, remove=False))


def test_a_daemon_that_is_not_installed_names_the_command_that_installs_it(from_wheel, monkeypatch, tmp_path):
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\necho 'Unit halftunnel.service not found.' >&2\nexit 5\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(daemon_process, "SYSTEMD", tmp_path)
    monkeypatch.setattr(daemon_process, "DEFAULT_CONTROL_SOCKET", str(tmp_path / "none.sock"))
    with pytest.raises(
        HostError, match=r"as root run /opt/pipx/venvs/halftunnel-vpn/bin/htvpn install client"
    ):
        daemon_process.ensure(None)


@pytest.mark.parametrize("role", installation.UNITS)
def test_units_run_the_program_where_it_is(role):
    for name in installation.UNITS[role]:
        text = installation.unit_text(name, Path("/srv/elsewhere"))
        assert "/opt/halftunnel" not in text
        assert name.endswith(".socket") or "/srv/elsewhere/bin/" in text


def test_one_exit_of_several_runs_as_the_only_one_does():
    """The units differ in their names and directories alone."""
    one, several = (
        [line for line in installation.unit_text(name, Path("/x")).splitlines() if not line.startswith("#")]
        for name in installation.UNITS["server"]
    )
    for own in ("ExecStartPre=+/bin/chmod 0755 /var/lib/halftunnel-servers", "User=htvpn-%i"):
        several.remove(own)
    assert "StateDirectory=halftunnel-servers/%i" in several
    assert [
        line.replace("halftunnel-servers/%i", "halftunnel-server").removesuffix(" %i") for line in several
    ] == one


@pytest.mark.parametrize("role", installation.UNITS)
def test_the_example_is_there(role):
    assert installation.example(role) == ROOT / "configs" / f"{role}.toml"


@pytest.fixture
def as_root(monkeypatch, tmp_path):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(install, "SYSTEMD", tmp_path)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        ("from_tree", "services do not run from a source tree: run .*/scripts/install client"),
        ("from_package", "this program came as a Debian package: run apt install halftunnel-client"),
    ],
)
def test_install_refuses_where_another_way_is_the_right_one(way, sentence, request):
    request.getfixturevalue(way)
    with pytest.raises(HostError, match=sentence):
        install.install(Namespace(role="client"))


@pytest.mark.usefixtures("as_root", "from_wheel")
@pytest.mark.parametrize(
    "place", ["/root/.local/share/pipx/venvs/halftunnel-vpn", "/home/a/venv", "/tmp/venv"]
)
def test_an_environment_that_the_units_do_not_see_is_refused(place, monkeypatch):
    monkeypatch.setattr(sys, "prefix", place)
    with pytest.raises(HostError, match=r"the units do not see /\w+, where .* PIPX_HOME=/opt/pipx"):
        install.install(Namespace(role="server"))


@pytest.mark.usefixtures("as_root", "from_wheel")
def test_an_environment_that_others_can_change_is_refused(monkeypatch, tmp_path):
    environment = tmp_path / "venv"
    (environment / "lib").mkdir(parents=True)
    (environment / "lib" / "module.py").touch()
    (environment / "lib" / "module.py").chmod(0o666)
    monkeypatch.setattr(install, "HIDDEN", ())
    monkeypatch.setattr(sys, "prefix", str(environment))
    with pytest.raises(HostError, match="another user than root can change /"):
        install.install(Namespace(role="server"))


def test_only_root_installs(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostError, match="only root can install units"):
        install.install(Namespace(role="client"))


SENTENCES_OF_THE_TREE = ("scripts/", "source tree")


def test_no_message_sends_people_to_a_source_tree_that_they_may_not_have():
    """Only the module that knows how the program came may name scripts of the tree."""
    allowed = {"cli/installation.py", "cli/install.py", "cli/demo.py", "__init__.py"}
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "halftunnel_vpn").rglob("*.py"))
        if str(path.relative_to(ROOT / "halftunnel_vpn")) not in allowed
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if any(word in line for word in SENTENCES_OF_THE_TREE)
    ]
    assert found == []
