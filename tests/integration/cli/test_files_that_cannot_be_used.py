"""Files that may not be read or are too long, output that nobody takes: always one sentence."""

from __future__ import annotations

import encodings.idna
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from halftunnel_vpn.cli import process_options, profile, profiles, server_clients, server_init, server_run, up
from halftunnel_vpn.cli.main import main
from halftunnel_vpn.config.schema import MAX_TEXT
from halftunnel_vpn.errors import ConfigError, HostError

NOBODY = 65534
NEEDED = (encodings.idna, process_options, profile, server_clients, server_init, server_run, up)
"""Loaded before the test is somebody else, who may not read them everywhere."""
ROADS = ("--upstream", "wss://a.example.org", "--downstream", "wss://b.example.net:8443")


@pytest.fixture
def private(tmp_path: Path, profile_text: str, let_others_enter: Callable[[Path], None]) -> Iterator[Path]:
    """A directory of root's alone with a profile in it; the test is somebody else."""
    let_others_enter(tmp_path)
    made = tmp_path / "private"
    made.mkdir(mode=0o700)
    (made / "home.toml").write_text(profile_text)
    os.seteuid(NOBODY)
    try:
        yield made
    finally:
        os.seteuid(0)


@pytest.mark.root
@pytest.mark.parametrize(
    "words",
    [
        ("profile", "list", "--dir", "."),
        ("profile", "use", "home", "--dir", "."),
        ("profile", "remove", "home", "--dir", "."),
        ("profile", "add", "other", "home.toml", "--dir", "."),
        ("up", "--foreground", "./home.toml"),
        ("server", "init", "--dir", "./exit", *ROADS),
        ("server", "run", "--dir", "."),
        ("server", "add-client", "laptop", "--dir", "."),
        ("server", "remove-client", "laptop", "--dir", "."),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_what_belongs_to_root_is_one_sentence_for_others(private, capsys, words):
    at = [str(private / word) if word.startswith(".") or word == "home.toml" else word for word in words]
    assert main(at) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "unforeseen" not in said
    assert "Permission denied" in said or "may not be read by this user" in said


@pytest.mark.root
def test_profiles_that_may_not_be_seen_are_not_missing(private):
    for name in (None, "home"):
        with pytest.raises(HostError, match="Permission denied; run this as root"):
            profiles.find(name, private)


def test_a_name_too_long_for_a_file_is_one_sentence(tmp_path, capsys):
    long = "x" * 300
    for words in (
        ["up", "--foreground", long],
        ["server", "init", "--dir", str(tmp_path / long), *ROADS],
        ["profile", "add", "home", long, "--dir", str(tmp_path)],
    ):
        assert main(words) == 1
        assert capsys.readouterr().err.endswith("File name too long\n")


@pytest.mark.parametrize("character", ["#", "ä"], ids=["ASCII", "two bytes each"])
def test_a_file_that_is_too_long_is_refused_and_not_cut(tmp_path, profile_text, character):
    # What is cut off might be the half of the block list; in two bytes each it is short enough in characters.
    line = "#" + character * (1023 // len(character.encode())) + "\n"
    file = tmp_path / "long.toml"
    file.write_text(profile_text + line * (MAX_TEXT // len(line.encode()) + 1))
    with pytest.raises(ConfigError, match=rf"long\.toml: longer than {MAX_TEXT} bytes, so it is not read"):
        profiles.load(file)


def test_standard_input_is_read_within_the_same_bound(htvpn, tmp_path):
    with Path("/dev/zero").open() as endless:
        done = htvpn("profile", "add", "home", "-", "--dir", tmp_path, stdin=endless)
    assert (done.returncode, done.stderr) == (
        1, f"htvpn: standard input: longer than {MAX_TEXT} bytes, so it is not read\n",
    )  # fmt: skip
    (tmp_path / "binary").write_bytes(b'name = "\xff"\n')
    for locale in ("C", "C.UTF-8"):
        with (tmp_path / "binary").open() as binary:
            done = htvpn(
                "profile", "add", "home", "-", "--dir", tmp_path, stdin=binary, env={"LC_ALL": locale}
            )
        assert done.stderr == "htvpn: standard input is not UTF-8; write it again\n"


@pytest.mark.parametrize(
    ("output", "code", "said"), [("/dev/full", 1, "htvpn: No space left on device\n"), ("&-", 3, "")]
)
def test_output_that_cannot_be_written_is_one_sentence(tmp_path, output, code, said):
    command = f"{sys.executable} -m halftunnel_vpn.cli status --socket {tmp_path}/none >{output}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (code, said)
