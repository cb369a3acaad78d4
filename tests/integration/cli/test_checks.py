"""`htvpn config check` and `htvpn server check` on real files, sockets and names."""

from __future__ import annotations

import json
import socket

import pytest
from lab.profiles import LEAST

from halftunnel_vpn.cli import server_check
from halftunnel_vpn.client.diagnosis.finding import Outcome
from halftunnel_vpn.config.server import ListenerConfig


def test_a_port_is_free_or_has_somebody():
    def listener(address: str, port: int) -> ListenerConfig:
        return ListenerConfig(address=address, port=port, path="/p", certificate="c", certificate_key="k")

    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert "in use" in server_check.check_port("upstream", listener("127.0.0.1", port)).text
    assert "is free" in server_check.check_port("upstream", listener("127.0.0.1", port)).text
    absent = server_check.check_port("upstream", listener("192.0.2.1", 443))
    assert absent.outcome is Outcome.FAILED and "[listen.upstream]" in absent.text


async def test_a_name_leads_here_elsewhere_or_nowhere():
    assert (await server_check.check_name("upstream", "wss://localhost/up")).outcome is Outcome.OK
    elsewhere = await server_check.check_name("upstream", "wss://192.0.2.1/up")
    assert elsewhere.outcome is Outcome.WARNING and "CDN" in elsewhere.text
    nowhere = await server_check.check_name("upstream", "wss://no-such-name.invalid/up")
    assert nowhere.outcome is Outcome.FAILED and "[public.upstream]" in nowhere.text


@pytest.fixture
def profile(tmp_path):
    made = tmp_path / "laptop.toml"
    made.touch(mode=0o600)
    made.write_text(LEAST)
    return made


def test_a_configuration_is_checked_before_it_is_used(htvpn, profile, exit_directory):
    done = htvpn("config", "check", profile)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{profile} is a valid profile, home\n", "")
    done = htvpn("config", "check", exit_directory / "server.toml")
    assert done.returncode == 0 and "is a valid configuration of an exit" in done.stdout
    assert htvpn("config", "check", "-", input=LEAST).stdout == "- is a valid profile, home\n"


def test_every_mistake_of_a_configuration_is_named(htvpn, profile, exit_directory):
    profile.write_text(LEAST + "[tun]\nmtu = 1\n[protection]\nkill_swich = 1\n")
    done = htvpn("config", "check", profile)
    assert done.returncode == 1 and done.stdout == ""
    assert "has 2 problems" in done.stderr and "did you mean kill_switch?" in done.stderr
    server = exit_directory / "server.toml"
    server.write_text(server.read_text().replace("[listen.upstream]", "[listen.upstream]\nprot = 1", 1))
    done = htvpn("config", "check", server)
    assert done.returncode == 1 and "did you mean port?" in done.stderr
    done = htvpn("config", "check", "/nowhere.toml")
    assert done.returncode == 1 and done.stderr == "htvpn: there is no file /nowhere.toml\n"
    profile.chmod(0o644)
    profile.write_text(LEAST)
    assert "run chmod 600" in htvpn("config", "check", profile).stderr


def test_a_profile_is_added_under_the_name_that_is_in_it(htvpn, profile, tmp_path):
    store = tmp_path / "profiles"
    assert htvpn("profile", "add", profile, "--dir", store).stdout == "profile home is stored\n"
    assert htvpn("profile", "add", "work", "--dir", store, profile).stdout == "profile work is stored\n"
    assert sorted(path.name for path in store.glob("*.toml")) == ["home.toml", "work.toml"]
    profile.write_text("name = 1")
    done = htvpn("profile", "add", profile, "--dir", store)
    assert done.returncode == 1 and "name = 1: must be" in done.stderr


def test_an_exit_is_checked_as_a_whole(htvpn, exit_directory):
    done = htvpn("server", "check", "--dir", exit_directory, "--json")
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1  # a.example.org leads nowhere
    assert found["files"]["outcome"] == "ok"
    assert found["name, upstream"]["outcome"] == "failed" and "A or AAAA" in found["name, upstream"]["text"]
    assert found["certificate, upstream"]["outcome"] == "ok"
    assert {"port, upstream", "port, downstream", "firewall", "clock", "pings"} <= set(found)
    lines = htvpn("server", "check", "--dir", exit_directory).stdout.splitlines()
    assert len(lines) == len(json.loads(done.stdout)) and lines[0].startswith("ok       files: ")
    done = htvpn("server", "check", "--files", "--dir", exit_directory)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
