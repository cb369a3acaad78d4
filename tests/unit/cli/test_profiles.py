"""Which profile is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from halftunnel_vpn.cli import profiles
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.errors import ConfigError, HostError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    return tmp_path / "profiles"


def test_without_a_name_the_only_profile_is_meant(directory):
    with pytest.raises(ConfigError, match=r"there is no profile in .*; name a file, or put NAME.toml there"):
        profiles.find(None, directory)
    (directory / "home.toml").touch()
    assert profiles.find(None, directory) == directory / "home.toml"
    (directory / "work.toml").touch()
    with pytest.raises(ConfigError, match=r"several profiles in .*: home, work; name one"):
        profiles.find(None, directory)


def test_a_name_is_looked_up_and_a_file_is_taken_as_it_is(directory, tmp_path, monkeypatch):
    (directory / "home.toml").touch()
    assert profiles.find("home", directory) == directory / "home.toml"

    monkeypatch.chdir(tmp_path)
    Path("other.toml").touch()
    assert profiles.find("other.toml", directory) == Path("other.toml")
    assert profiles.find("./home", directory) == Path("./home")
    with pytest.raises(ConfigError, match=r"no profile away in .*, and no file of that name"):
        profiles.find("away", directory)


def test_a_directory_that_is_not_there_has_no_profiles(tmp_path):
    with pytest.raises(ConfigError, match="there is no profile"):
        profiles.find(None, tmp_path / "nothing")


def test_a_file_that_cannot_be_read_as_text_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*/gone\.toml"):
        profiles.load(tmp_path / "gone.toml")
    with pytest.raises(HostError, match="cannot be read: Is a directory"):
        profiles.load(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        profiles.load(tmp_path / "binary.toml")


def test_a_byte_order_mark_is_no_part_of_a_profile(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "configs" / "client.toml").read_text()
    path = tmp_path / "home.toml"
    path.touch(mode=0o600)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert profiles.load(path) == parse_client(text)
