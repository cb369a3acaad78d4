"""`htvpn up` that does not come up: one sentence that says what to do, exit code 1, the host as it was."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab import Lab
from lab.target import start_lan_resolver
from lab.topology import CLIENT, EXIT, LAN
from lab.tunnel import LASTING_STATE, LabTunnel, edit

from halftunnel_vpn.protocol.keys import KeyPair, encode_key

pytestmark = pytest.mark.root

SENTENCE = re.compile(r"htvpn: \S[^\n]+\n")
NOBODY = 65534

TIMES = {"limits": {"handshake_timeout": '"4s"', "connect_timeout": '"2s"'}}


def in_another_place(*changes: str) -> list[str]:
    """A wrapper under which a part of the file system looks different."""
    script = " && ".join([*changes, 'exec "$@"'])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "-"]


@pytest.fixture(scope="module")
def lab(no_leftovers):
    """One for all tests here: whatever they do, they leave the client as it was."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def tunnel(lab):
    """A running exit, a profile for it that is all right, and a resolver that answers."""
    start_lan_resolver(lab)
    made = LabTunnel(lab, profile=TIMES, server={"metrics": {"listen": '"127.0.0.1:9100"'}})
    made.start_exit()
    return made


@pytest.fixture
def place():
    """A directory that other users may enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def profile(tunnel, place):
    """A copy of the profile that a test may spoil."""
    path = place / "laptop.toml"
    shutil.copy(tunnel.profile, path)
    path.chmod(0o600)
    return path


@pytest.fixture
def fails(lab, snapshot, place):
    """Runs `htvpn up`, sees that it fails as it should, and returns what it said."""
    socket, state = place / "control.sock", place / "state"

    def run(profile, *, wrapper=(), after_connecting=False):
        before = snapshot()
        up = ["-m", "halftunnel_vpn.cli", "up", str(profile), "--foreground", "--socket", str(socket)]
        done = lab.run(
            CLIENT, [*wrapper, sys.executable, *up], env={"STATE_DIRECTORY": str(state)}, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        *log, said = done.stderr.splitlines(keepends=True)
        assert SENTENCE.fullmatch(said)
        assert bool(log) == after_connecting, "what it logged before that"
        assert snapshot() == before
        assert not socket.exists()
        assert {path.name for path in state.glob("*")} <= LASTING_STATE
        return said

    return run


@pytest.mark.parametrize("road", ("upstream", "downstream"))
def test_nothing_listens_on_a_road(fails, profile, road):
    profile.write_text(re.sub(rf"(\[{road}\]\nurls = .*):8443", r"\1:8444", profile.read_text()))
    said = fails(profile)
    assert said.startswith(f"htvpn: {road.capitalize()}: ")
    assert "port 8444: nothing listens there; check the address and the port" in said


def test_a_road_stays_silent(fails, profile, lab):
    lab.run(
        EXIT, ["nft", "add table inet mute; add chain inet mute in { type filter hook input priority 0; }"]
    )
    lab.run(EXIT, ["nft", "add rule inet mute in tcp dport 8443 drop"])
    try:
        said = fails(profile)
    finally:
        lab.run(EXIT, ["nft", "delete table inet mute"])
    assert "does not answer in time: check the address and any firewall" in said


def test_a_name_does_not_exist(fails, profile):
    profile.write_text(profile.read_text().replace("//a.half-tunnel.test", "//nobody.half-tunnel.test"))
    said = fails(profile)
    assert "the name nobody.half-tunnel.test does not exist: check its spelling in the profile" in said


def test_no_resolver_answers(fails, profile, lab):
    profile.write_text(profile.read_text().replace("//a.half-tunnel.test", "//nobody.half-tunnel.test"))
    lab.run(
        LAN, ["nft", "add table inet mute; add chain inet mute in { type filter hook input priority 0; }"]
    )
    lab.run(LAN, ["nft", "add rule inet mute in udp dport 53 drop"])
    try:
        said = fails(profile)
    finally:
        lab.run(LAN, ["nft", "delete table inet mute"])
    assert "no resolver of this machine answers for nobody.half-tunnel.test in time" in said


def test_the_certificate_is_of_an_authority_that_is_not_trusted(fails, profile, tunnel):
    other, own = ((tunnel.directory / f"{road}-ca.pem").read_text() for road in ("downstream", "upstream"))
    profile.write_text(profile.read_text().replace(own.strip(), other.strip()))
    said = fails(profile)
    assert "certificate of a.half-tunnel.test port 8443 is not trusted" in said
    assert "get a fresh profile" in said


def test_the_public_key_is_that_of_another_exit(fails, profile):
    other = encode_key(KeyPair(bytes(range(32))).public)
    edit(profile, {"exit": {"public_key": f'"{other}"'}})
    assert "check that" in (said := fails(profile)) and "the profile is the one it gave" in said
    assert "handshake-bad-tag for the key of another exit" in said


def test_the_client_was_removed_from_the_exits_list(fails, tunnel, place):
    profile = place / "former.toml"
    tunnel.add_client("former", profile)
    edit(profile, TIMES)
    tunnel.htvpn(EXIT, "server", "remove-client", "former", "--dir", str(tunnel.directory))
    assert "check that this client is still on the exit's list" in fails(profile)


def test_the_device_name_is_taken(fails, profile, lab):
    lab.run(CLIENT, "ip link add htvpn0 type bridge".split())
    try:
        said = fails(profile)
    finally:
        lab.run(CLIENT, "ip link del htvpn0".split())
    assert "The device name htvpn0 is taken: end the program that uses it, or choose another name" in said


def test_the_host_refuses_when_the_exit_has_made_a_session(fails, profile, lab, place, eventually):
    """The legs are dialled while the host is checked: a session that was made in vain is ended."""

    def sessions():
        page = lab.run(EXIT, ["curl", "-sSf", "http://127.0.0.1:9100/metrics"]).stdout
        return float(re.search(r"^halftunnel_active_sessions (.*)$", page, re.MULTILINE)[1])

    nft, goes_on = Path(shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")).resolve(), place / "goes-on"
    (place / "nft").write_text(
        f"#!/bin/sh\nuntil [ -e {goes_on} ]; do sleep 0.02; done\nmount --bind /dev/null {nft}\nexit 1\n"
    )
    (place / "nft").chmod(0o755)
    vanishing = in_another_place(f"mount --bind {place / 'nft'} {nft}")
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(fails, profile, wrapper=vanishing, after_connecting=True)
        try:
            eventually(lambda: sessions() == 1 or running.done(), within=30)
        finally:
            goes_on.touch()
        assert "nft is not installed: install the package nftables" in running.result()
    eventually(lambda: sessions() == 0, within=10)  # without a goodbye it is kept for five minutes


def test_the_clock_is_years_behind(fails, profile):
    said = fails(profile, wrapper=["faketime", "2021-05-05 05:05:05"])
    assert "is not valid yet: check this machine's clock" in said


def test_nobody_is_not_root(fails, profile, place):
    for path in (place, profile):
        os.chown(path, NOBODY, NOBODY)
    # coverage, when it measures this run, could not write its data as nobody, and would say so
    unmeasured = ["env", "-u", "COVERAGE_PROCESS_CONFIG", "-u", "COVERAGE_PROCESS_START"]
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    said = fails(profile, wrapper=[*unmeasured, *as_nobody])
    assert "A tunnel needs root" in said and "run the command with sudo" in said


def test_root_lacks_the_capability(fails, profile):
    said = fails(profile, wrapper=["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"])
    assert "the capability NET_ADMIN" in said


def test_nft_is_not_installed(fails, profile):
    nft = Path(shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")).resolve()
    said = fails(profile, wrapper=in_another_place(f"mount --bind /dev/null {nft}"))
    assert "nft is not installed: install the package nftables" in said


def test_there_is_no_tun_driver(fails, profile):
    said = fails(profile, wrapper=in_another_place("mount -t tmpfs none /dev/net"))
    assert "There is no /dev/net/tun" in said and "modprobe tun" in said


def test_the_state_directory_cannot_be_written(fails, profile, place):
    (place / "state").mkdir()
    read_only = in_another_place(f"mount -t tmpfs -o ro none {place / 'state'}")
    said = fails(profile, wrapper=read_only)
    assert "cannot be written (Read-only file system)" in said
