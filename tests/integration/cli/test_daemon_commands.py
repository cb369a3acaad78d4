"""The commands that go to a daemon: `htvpn` as a process, a small daemon behind the real routes."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import pytest

from halftunnel_vpn.config.client import parse_client


@pytest.fixture
def socket(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
def on(htvpn, socket):
    """Run `htvpn WORDS --socket ...` while the daemon serves."""

    async def run(*words, **options):
        return await asyncio.to_thread(htvpn, *words, "--socket", socket, **options)

    return run


def start(*words) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "halftunnel_vpn.cli", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


async def test_up_waits_until_it_is_connected_and_down_until_it_is_not(serve_daemon, on, store, profile_text):
    store.put("home", profile_text)
    async with serve_daemon() as daemon:
        up = await on("up", "home")
        assert (up.returncode, up.stderr) == (0, "")
        assert up.stdout.startswith("connected, profile home")
        assert (await on("up")).returncode == 0, "already up is no error"
        down = await on("down")
        assert (down.returncode, down.stdout) == (
            0,
            "disconnected; the kill switch stays on and blocks everything that it does not allow\n",
        )
        again = await on("down")
        assert (again.returncode, again.stderr) == (3, "htvpn: not connected\n")
    assert daemon.told == [("up", "home"), ("up", "home"), "down"]


async def test_what_failed_is_told_in_one_sentence(serve_daemon, on, store, profile_text):
    store.put("home", profile_text)
    async with serve_daemon() as daemon:
        daemon.failure = "a.example.org port 443 does not answer in time"
        up = await on("up", "home")
        assert (up.returncode, up.stdout) == (1, "")
        assert up.stderr == "htvpn: a.example.org port 443 does not answer in time\n"
        # An older failure is not taken for that of the next attempt.
        daemon.failure = None
        assert (await on("up", "home")).returncode == 0
        up = await on("up", "away")
        assert up.returncode == 1 and up.stderr.startswith("htvpn: there is no profile away in ")


async def test_up_ends_when_somebody_says_down_meanwhile(serve_daemon, on, store, profile_text):
    store.put("home", profile_text)
    async with serve_daemon() as daemon:
        daemon.hangs = True
        up = asyncio.create_task(on("up", "home"))
        while not daemon.told:
            await daemon.ring.read(0, 5)
        assert (await on("down")).returncode == 0
        ended = await up
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == "htvpn: not connected: stopped by 'htvpn down'\n"


async def test_a_file_is_handed_over_under_its_own_name(serve_daemon, on, store, profile_text, tmp_path):
    file = tmp_path / "some.toml"
    file.write_text(profile_text)
    async with serve_daemon() as daemon:
        assert (await on("up", file)).returncode == 0
        assert daemon.told == [("up", "example")] and store.names() == ["example"]
        assert (await on("up", file)).returncode == 0, "the same again is no error"
        file.write_text(profile_text + "\n# another\n")
        up = await on("up", file)
        assert up.returncode == 1 and "there is another profile example already" in up.stderr
        file.write_text("name = 1")
        up = await on("up", file)
        assert up.returncode == 1 and "Traceback" not in up.stderr
        up = await on("up", tmp_path / "gone.toml")
        assert up.stderr == f"htvpn: {tmp_path}/gone.toml cannot be read: No such file or directory\n"


async def test_a_long_block_list_is_handed_over(serve_daemon, on, store, profile_text, tmp_path):
    names = ", ".join(f'"host{number}.ads.example.org"' for number in range(50_000))
    file = tmp_path / "long.toml"
    file.write_text(profile_text.replace("\nblock = []\n", f"\nblock = [{names}]\n"))
    assert file.stat().st_size > 1024 * 1024
    async with serve_daemon():
        up = await on("up", file)
        assert (up.returncode, up.stderr) == (0, "")
        assert len(store.load("example").dns.block) == 50_000


async def test_nobody_there_is_one_sentence(on, socket):
    for words in (["up"], ["reconnect"], ["logs"], ["portal"], ["reload"]):
        done = await on(*words)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith(("htvpn: no daemon answers at", "htvpn: the daemon is not running"))
        assert done.stderr.count("\n") == 1


async def test_short_orders(serve_daemon, on, store, profile_text):
    store.put("home", profile_text)
    async with serve_daemon() as daemon:
        refused = await on("reconnect")
        assert (refused.returncode, refused.stderr) == (1, "htvpn: nothing is up; 'htvpn up' connects\n")
        await on("up")
        assert (await on("reconnect")).returncode == 0
        assert (await on("reload")).returncode == 0
        opened = await on("portal", "--minutes", "2")
        assert opened.returncode == 0 and "open for 2 min" in opened.stdout
        assert (await on("portal", "--minutes", "0")).stdout == "closed\n"
        repaired = await on("repair")
        assert repaired.stdout == "restored: the route table 18516 was removed\n"
        assert "lift" not in daemon.told
    assert daemon.told[1:] == ["reconnect", "reload", ("portal", 120.0), ("portal", 0.0)]


async def test_the_log_is_shown_and_followed(serve_daemon, on, socket):
    async with serve_daemon() as daemon:
        daemon.lines.append("first")
        daemon.lines.append("sec\x1b[2Jond")
        shown = (await on("logs")).stdout.splitlines()
        assert shown[0].endswith("INFO x: first session=1")
        assert shown[1].endswith("INFO x: sec?[2Jond session=1")
        assert (await on("logs", "-n", "1")).stdout.splitlines() == shown[1:]
        assert json.loads((await on("logs", "-n", "1", "--json")).stdout)["serial"] == 2
        follower = start("logs", "-f", "--socket", socket)
        try:
            for expected in ("first", "ond"):
                assert expected in await asyncio.to_thread(follower.stdout.readline)
            daemon.lines.append("third")
            assert "third" in await asyncio.to_thread(follower.stdout.readline)
        finally:
            follower.send_signal(signal.SIGINT)
            _, said = await asyncio.to_thread(follower.communicate)
    assert follower.returncode == 1 and said == "htvpn: interrupted\n"


async def test_a_watched_status_is_shown_again_until_interrupted(serve_daemon, socket):
    async with serve_daemon() as daemon:
        watch = start("status", "--watch", "--json", "--socket", socket)
        try:
            assert json.loads(await asyncio.to_thread(watch.stdout.readline))["state"] == "disconnected"
            daemon.become("connected")
            shown = ""
            while shown != "connected":
                shown = json.loads(await asyncio.to_thread(watch.stdout.readline))["state"]
        finally:
            watch.send_signal(signal.SIGINT)
            _, said = await asyncio.to_thread(watch.communicate)
    assert (watch.returncode, said) == (0, "")


def test_profiles_in_a_directory(htvpn, profile_text, tmp_path):
    directory, file = tmp_path / "profiles", tmp_path / "p.toml"
    file.write_text(profile_text)
    at = ("--dir", directory)
    nothing = htvpn("profile", "list", *at)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "there is no profile; add one with" in nothing.stderr
    assert htvpn("profile", "add", "home", file, *at).stdout == "profile home is stored\n"
    assert htvpn("profile", "add", "work", "-", *at, input=profile_text).returncode == 0
    assert htvpn("profile", "list", *at).stdout == "  home\n  work\n"
    assert htvpn("profile", "use", "work", *at).returncode == 0
    (directory / "broken.toml").write_text("name = 1")
    listed = htvpn("profile", "list", *at).stdout.splitlines()
    assert listed[0].startswith(f"  broken: {directory}/broken.toml") and listed[1:] == ["  home", "* work"]
    file.write_text(profile_text + "\n")
    refused = htvpn("profile", "add", "home", file, *at)
    assert refused.returncode == 1 and "there is another profile home already" in refused.stderr
    assert htvpn("profile", "add", "--replace", "home", file, *at).returncode == 0
    assert (directory / "home.toml").read_text() == profile_text + "\n"
    assert htvpn("profile", "remove", "work", *at).returncode == 0
    assert htvpn("profile", "list", *at).stdout.splitlines()[1:] == ["  home"]
    for words in (
        ["remove", "work"],
        ["use", "work"],
        ["add", "../x", file],
        ["add", "x", tmp_path / "gone"],
    ):
        done = htvpn("profile", *words, *at)
        assert done.returncode == 1 and done.stderr.startswith("htvpn: ") and "Traceback" not in done.stderr
    assert sorted(path.name for path in directory.iterdir()) == [".default", "broken.toml", "home.toml"]


@pytest.mark.root
def test_an_unreadable_profile_is_one_sentence(htvpn, tmp_path):
    (tmp_path / "home.toml").mkdir()
    listed = htvpn("profile", "add", "home", tmp_path / "home.toml", "--dir", tmp_path / "store")
    assert listed.returncode == 1
    assert listed.stderr == f"htvpn: {tmp_path}/home.toml cannot be read: Is a directory\n"


def test_options_of_the_foreground_are_not_swallowed(htvpn):
    up = htvpn("up", "--metrics", "127.0.0.1:9100")
    assert up.returncode == 2 and "--metrics works only with --foreground" in up.stderr
    assert htvpn("portal", "--minutes", "61").returncode == 2
    assert htvpn("logs", "-n", "-1").returncode == 2


async def test_exits_are_measured_chosen_and_changed(serve_daemon, on, store, profile_text):
    store.put("home", profile_text)
    async with serve_daemon() as daemon:
        switched = await on("switch", "home")
        assert (switched.returncode, switched.stdout) == (1, "")
        assert "nothing is up" in switched.stderr
        assert (await on("up", "home", "--fastest")).returncode == 0
        assert (await on("up", "--exit", "home")).returncode == 0
        shown = await on("exits")
        assert (shown.returncode, shown.stdout) == (0, "home    20 ms  ready\n")
        printed = await on("exits", "home", "--json")
        assert [each["state"] for each in json.loads(printed.stdout)] == ["ready"]
        switched = await on("switch", "gone")
        assert switched.returncode == 1 and "home stays in use" in switched.stderr
    assert daemon.told == [
        *(("up", "home", None, True), ("up", "home", "home", False)),
        *(("exits", None), ("exits", "home")),
    ]


def test_an_exit_is_added_to_a_profile_from_another_one(htvpn, tmp_path, profile_text):
    kept, other = tmp_path / "profiles", tmp_path / "other.toml"
    other.write_text(profile_text.replace('name = "home"', 'name = "away"'))
    (tmp_path / "home.toml").write_text(profile_text)
    assert htvpn("profile", "add", "home", tmp_path / "home.toml", "--dir", kept).returncode == 0
    added = htvpn("profile", "add-exit", "home", other, "--exit", "second", "--dir", kept)
    assert (added.returncode, added.stderr) == (0, "")
    again = htvpn("profile", "add-exit", "home", other, "--exit", "second", "--dir", kept)
    assert again.returncode == 1 and "has an exit second already" in again.stderr
    assert [entry.name for entry in parse_client((kept / "home.toml").read_text()).exits][1:] == ["second"]
