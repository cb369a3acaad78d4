"""What completion offers for a line, as the parser has it."""

from __future__ import annotations

import shlex

import pytest

from halftunnel_vpn.cli import completion
from halftunnel_vpn.cli.arguments import build_parser


def offered(line: str) -> list[str]:
    """The candidates for the last word of ``line``; a line that ends with a space begins a new word."""
    words = shlex.split(line) + ([""] if line.endswith(" ") or not line else [])
    return [found.text for found in completion.candidates(build_parser(), words)]


@pytest.fixture
def profiles(monkeypatch, tmp_path):
    for name in ("home", "hotel", "work"):
        (tmp_path / f"{name}.toml").touch()
    monkeypatch.setattr(completion, "PROFILES", tmp_path)


@pytest.fixture
def exit_directory(tmp_path):
    (tmp_path / "clients").mkdir()
    for name in ("laptop", "phone"):
        (tmp_path / "clients" / f"{name}.toml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("", {"up", "down", "server", "profile", "completion"}),
        ("serv", {"server"}),
        ("server ", {"init", "run", "add-client", "certificate"}),
        ("server certificate --direction ", {"upstream", "downstream"}),
        ("server certificate --direction=d", {"--direction=downstream"}),
        ("server run --log-format j", {"json"}),
        ("up --fore", {"--foreground"}),
        ("up --log-level error --for", {"--foreground"}),
        ("status ", {"--json", "--watch"}),
        ("completion ", {"bash", "zsh", "fish"}),
        ("install ", {"client", "server"}),
        ("up --socket ", {":files"}),
        ("server run --dir ", {":directories"}),
        ("exclude -- ", {":commands"}),
        ("profile add home ", {":files"}),
        ("switch --f", {"--fastest"}),
        ("profile add-exit home ", {":files"}),
    ],
)
def test_the_parser_says_what_comes_next(line, some):
    found = offered(line)
    assert some <= set(found)
    beginning = line.rpartition(" ")[2]
    assert all(word.startswith((beginning, ":")) for word in found)


@pytest.mark.parametrize("line", ["nonsense ", "down --json=", "logs -n ", "server add-client "])
def test_where_nothing_fits_nothing_is_offered(line):
    assert offered(line) == []


def test_the_command_of_the_scripts_is_not_offered_and_not_in_the_help():
    assert "__complete" not in offered("")
    assert "__complete" not in build_parser().format_help()


@pytest.mark.usefixtures("profiles")
def test_names_of_profiles_are_offered():
    assert offered("profile use ho") == ["home", "hotel"]
    assert offered("profile remove ") == ["home", "hotel", "work"]
    assert offered("profile add ") == [":files"]
    assert offered("profile add laptop ") == [":files"]
    assert offered("up w") == ["work", ":files"]


def test_names_of_clients_are_offered_from_the_directory_on_the_line(exit_directory):
    assert offered(f"server remove-client --dir {exit_directory} ") == ["laptop", "phone"]
    assert offered(f"server remove-client --dir={exit_directory} p") == ["phone"]
    assert offered("server remove-client --dir /nowhere ") == []


def test_what_another_program_is_told_is_not_completed_as_our_option():
    assert offered("exclude -- ping --") == [":commands"]


def test_bash_takes_the_equals_sign_apart():
    words = ["server", "certificate", "--direction", "=", "up"]
    assert [found.text for found in completion.candidates(build_parser(), words)] == ["upstream"]
    words = ["server", "certificate", "--direction", "="]
    assert len(completion.candidates(build_parser(), words)) == 2
