"""From an invitation to a session, over real legs: the key is made at the client, and a link works once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from halftunnel_vpn.config.client import parse_client


def htvpn(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "halftunnel_vpn.cli", *words]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def exit_at(tmp_path, free_port):
    """The directory of an exit of two ports on loopback, and the process that runs it."""
    directory = tmp_path / "x"
    a, b = free_port(), free_port()
    made = htvpn(
        "server", "init", "--dir", str(directory),
        "--upstream", f"wss://127.0.0.1:{a}", "--downstream", f"wss://localhost:{b}",
        "--listen-upstream", f"127.0.0.1:{a}", "--listen-downstream", f"127.0.0.1:{b}",
        "--dns", "127.0.0.1",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    log = (tmp_path / "log").open("w")
    argv = [sys.executable, "-m", "halftunnel_vpn.cli", "server", "run", "--dir", str(directory)]
    process = subprocess.Popen(argv, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while "is ready" not in (tmp_path / "log").read_text():
        assert time.monotonic() < deadline and process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    yield directory
    process.terminate()
    assert process.wait(30) == 0
    log.close()


def invite(directory: Path, name: str, *options: str) -> str:
    made = htvpn("server", "invite", name, "--dir", str(directory), *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines()[0]


def join(profiles: Path, link: str) -> subprocess.CompletedProcess[str]:
    return htvpn("join", "-", "--dir", str(profiles), stdin=link + "\n")


def read_code(image: Path) -> str:
    """Return what zbarimg reads from a picture."""
    argv = ["zbarimg", "-q", "--raw", str(image)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def photograph(screen: str, path: Path) -> None:
    """Draw what `tmux capture-pane -e` tells of a terminal: each cell is two squares, as dark as its colours.

    Around the code the terminal is dark, as most are.
    """
    rows: list[list[int]] = []
    is_light = False  # colours last until others are set, also over the end of a line
    for line in screen.splitlines():
        upper: list[int] = []
        lower: list[int] = []
        for sgr, character in re.findall(r"\x1b\[([0-9;]*)m|(.)", line):
            if not character:
                is_light = "48;5;231" in sgr or (is_light and sgr not in ("", "0") and "49" not in sgr)
                continue
            upper.append(0 if not is_light or character in "\u2580\u2588" else 255)
            lower.append(0 if not is_light or character in "\u2584\u2588" else 255)
        rows += [upper, lower]
    width, scale = max(map(len, rows)), 4
    pixels = bytearray()
    for row in rows:
        whole = [*row, *[0] * (width - len(row))]
        pixels += b"".join(bytes((value,)) * scale for value in whole) * scale
    path.write_bytes(b"P5 %d %d 255\n" % (width * scale, len(rows) * scale) + pixels)


def test_the_code_on_a_terminal_is_read_back(exit_at, tmp_path):
    program = f"{sys.executable} -m halftunnel_vpn.cli server invite tv --qr --dir {exit_at}"
    tmux = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]
    started = [*tmux, "new-session", "-d", "-x", "120", "-y", "60", f"{program}; echo done; sleep 600"]
    subprocess.run(started, check=True)
    try:
        deadline = time.monotonic() + 60
        screen = ""
        while "done" not in screen:
            assert time.monotonic() < deadline, screen
            time.sleep(0.1)
            argv = [*tmux, "capture-pane", "-p", "-e", "-N"]
            screen = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    photograph(screen, tmp_path / "screen.pgm")
    link = read_code(tmp_path / "screen.pgm")
    assert link.startswith("htvpn://") and len(link) <= 300
    assert join(tmp_path / "p", link).returncode == 0


def test_an_invitation_to_a_further_exit_adds_it_to_a_profile_with_a_key_of_its_own(exit_at, tmp_path):
    profiles = tmp_path / "profiles"
    assert join(profiles, invite(exit_at, "laptop")).returncode == 0
    before = (profiles / "laptop.toml").read_text()
    words = ("join", "-", "--dir", str(profiles), "--add-to", "laptop")
    link = invite(exit_at, "second")
    refused = htvpn(*words, "--name", "laptop", stdin=link + "\n")
    assert refused.returncode == 1 and "has an exit laptop already" in refused.stderr
    assert (profiles / "laptop.toml").read_text() == before
    added = htvpn(*words, stdin=link + "\n")  # the refusal has not used the invitation up
    assert added.returncode == 0, added.stderr
    text = (profiles / "laptop.toml").read_text()
    assert text.startswith(before.rstrip())
    first, second = parse_client(text, source="p").exits
    assert (first.name, second.name) == ("laptop", "second")
    assert first.private_key != second.private_key and second.upstream.tls.certificate_sha256
    used = htvpn(*words, "--name", "third", stdin=link + "\n")
    assert used.returncode == 1 and "has been used" in used.stderr
    assert (profiles / "laptop.toml").read_text() == text


def test_from_a_link_to_a_profile_that_the_exit_knows(exit_at, tmp_path):
    link = invite(exit_at, "laptop")
    profiles = tmp_path / "profiles"
    joined = join(profiles, link)
    assert joined.returncode == 0, joined.stderr
    assert "htvpn up laptop" in joined.stdout
    sessions = htvpn("server", "sessions", "--json", "--dir", str(exit_at))
    assert json.loads(sessions.stdout)["sessions"] == [], "the session of the registration has ended"
    profile = parse_client((profiles / "laptop.toml").read_text(), source="p")
    listed = (exit_at / "clients" / "laptop.toml").read_text()
    private = (profiles / "laptop.toml").read_text().split('private_key = "')[1].split('"')[0]
    assert private not in listed and profile.upstream.tls.certificate_sha256
    everything = "".join(p.read_text(errors="replace") for p in exit_at.rglob("*") if p.is_file())
    everything += (tmp_path / "log").read_text()
    assert private not in everything and link[8:] not in everything, "neither key nor secret is kept"

    again = join(tmp_path / "other", link)
    assert again.returncode == 1 and "has been used" in again.stderr
    assert not (tmp_path / "other" / "laptop.toml").exists()
    refused = htvpn("server", "invite", "laptop", "--dir", str(exit_at))
    assert refused.returncode == 1 and "has a client laptop already" in refused.stderr


def test_an_expired_and_an_altered_link(exit_at, tmp_path):
    link = invite(exit_at, "phone", "--expires", "30m")
    (file,) = (exit_at / "invitations").iterdir()
    file.write_text(re.sub(r"expires = \d+", f"expires = {int(time.time()) - 1}", file.read_text()))
    late = join(tmp_path / "p", link)
    assert late.returncode == 1 and "time of this invitation is over" in late.stderr
    swapped = link[:60] + ("A" if link[60] != "A" else "B") + link[61:]
    altered = join(tmp_path / "p", swapped)
    assert altered.returncode == 1 and "copy it again" in altered.stderr
    assert "Traceback" not in late.stderr + altered.stderr
    assert not list((tmp_path / "p").glob("*.toml"))


def test_the_images_hold_the_link(exit_at, tmp_path):
    for kind in ("png", "svg"):
        link = invite(exit_at, f"with-{kind}", "--output", str(tmp_path / f"code.{kind}"))
        assert (tmp_path / f"code.{kind}").stat().st_mode & 0o777 == 0o600
        if kind == "png":
            assert read_code(tmp_path / "code.png") == link
    assert (tmp_path / "code.svg").read_text().lstrip().startswith(("<?xml", "<svg"))
