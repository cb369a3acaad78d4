"""The parts of scripts/packaging that need no network: manual pages, the lock of versions, merged wheels."""

from __future__ import annotations

import re
import subprocess
import tomllib
import zipfile
from datetime import date
from importlib import import_module
from pathlib import Path

import pytest

from halftunnel_vpn.cli.arguments import build_parser

ROOT = Path(__file__).parents[3]
DAY = date(2026, 1, 31)


@pytest.fixture
def packaging(monkeypatch):
    """Modules of scripts/packaging by name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts/packaging"))
    return import_module


@pytest.fixture
def pages(packaging) -> dict[str, str]:
    examples = {role: (ROOT / f"configs/{role}.toml").read_text() for role in ("client", "server")}
    return packaging("man_pages").pages(examples, DAY)


def test_the_manual_has_every_command_and_option_of_the_parser(packaging, pages):
    page = pages["htvpn.1"]
    man_pages = packaging("man_pages")
    for names, command, _ in man_pages.commands(build_parser(), ()):
        _, _, section = page.partition(f".SS htvpn {man_pages.roff(' '.join(names))}\n")
        section = section.partition("\n.SS ")[0]
        assert section, names
        for action in man_pages.arguments(command):
            for option in action.option_strings:
                assert man_pages.bold(option) in section, (names, option)
    assert ".SS htvpn up\n" in page and "__complete" not in page


def test_the_manuals_of_the_files_say_default_explanation_and_what_is_allowed(pages):
    text = pages["halftunnel-profile.5"]
    found = re.search(r"\.TP\n\\fBconnections\\fR = 1\n(.+)\n(.+)\n", text)
    assert found[1].startswith("Legs (WebSocket connections) kept open")
    assert found[2] == "Must be a whole number from 1 to 16."
    assert ".SS [listen.upstream]" in pages["halftunnel-server.5"]


@pytest.mark.parametrize("name", ["htvpn.1", "halftunnel-profile.5", "halftunnel-server.5"])
def test_the_formatter_has_nothing_to_warn_of(name, pages, tmp_path):
    (tmp_path / name).write_text(pages[name])
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-Kutf8", "-z", str(tmp_path / name)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_text_that_looks_like_a_request_is_printed_as_it_stands(packaging):
    assert packaging("man_pages").roff(".so x\\y\n'z -q") == "\\&.so x\\ey\n\\&'z \\-q"


def test_the_lock_has_every_package_that_the_program_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["speed"]]
    locked = (ROOT / "scripts/packaging/requirements.txt").read_text()
    names = {line.partition("==")[0] for line in locked.splitlines() if re.match(r"[a-z0-9-]+==", line)}
    assert {re.split(r"[>=<;\[ ]", name)[0] for name in needed} <= names
    assert "http" not in locked, "no index of one machine belongs there"


def wheel(directory: Path, name: str, files: dict[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(directory / name, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


def test_modules_of_several_pythons_lie_side_by_side(packaging, tmp_path):
    for python in ("3.11", "3.13"):
        module = f"thing/fast.cpython-{python.replace('.', '')}.so"
        wheel(
            tmp_path / python, "thing-1.whl", {"thing/__init__.py": "", module: python, "thing/fast.c": "c"}
        )
    packaging("wheels").merge(tmp_path, ("3.11", "3.13"), tmp_path / "site")
    assert sorted(path.name for path in (tmp_path / "site/thing").iterdir()) == [
        "__init__.py", "fast.cpython-311.so", "fast.cpython-313.so",
    ]  # fmt: skip


def test_sources_that_differ_between_pythons_end_the_build(packaging, tmp_path):
    for python in ("3.11", "3.13"):
        wheel(tmp_path / python, "thing-1.whl", {"thing/__init__.py": f"version = {python}"})
    with pytest.raises(SystemExit, match=r"has another thing/__init__\.py"):
        packaging("wheels").merge(tmp_path, ("3.11", "3.13"), tmp_path / "site")


def test_a_licence_that_debian_has_is_named_and_not_repeated(packaging):
    common = packaging("wheels").common_or_text
    assert common("Copyright A\n\n  Apache License\n\n...") == (
        "Copyright A\n\nThe text of this licence is in /usr/share/common-licenses/Apache-2.0."
    )
    assert common("MIT\n") == "MIT\n"
