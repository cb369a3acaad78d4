"""A release: the changelog is cut, the version set, the commit tagged; a dry run changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import date
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- A thing.

## [0.1.0] - 2026-01-01

- The first.
"""


@pytest.fixture
def texts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts/packaging"))
    return import_module("release_text")


def test_what_is_unreleased_becomes_the_version(texts):
    cut = texts.cut(CHANGELOG, "0.2.0", date(2026, 2, 3))
    assert "## [Unreleased]\n\n## [0.2.0] - 2026-02-03\n\n### Added\n\n- A thing.\n\n## [0.1.0]" in cut
    assert texts.section(cut, "Unreleased") == ""
    assert texts.section(cut, "0.2.0") == "### Added\n\n- A thing."
    assert texts.section(cut, "0.1.0") == "- The first."


@pytest.mark.parametrize(
    ("changelog", "version", "sentence"),
    [
        (CHANGELOG, "0.1.0", r"has both \[0\.1\.0\] and unreleased changes"),
        (CHANGELOG.replace("### Added\n\n- A thing.\n", ""), "0.2.0", "nothing is unreleased"),
        ("# Changelog\n", "0.2.0", r"no section \[Unreleased\]"),
    ],
)
def test_a_changelog_that_does_not_fit_is_refused(texts, changelog, version, sentence):
    with pytest.raises(texts.ReleaseError, match=sentence):
        texts.cut(changelog, version, date(2026, 2, 3))


def test_a_version_that_is_in_the_changelog_already_keeps_its_text(texts):
    changelog = CHANGELOG.replace("### Added\n\n- A thing.\n", "")
    assert texts.cut(changelog, "0.1.0", date(2026, 2, 3)) == changelog


def test_the_version_stands_everywhere_and_does_not_go_back(texts):
    for name, pattern in texts.VERSION_FILES.items():
        text = (ROOT / name).read_text()
        assert pattern.search(texts.set_version(text, pattern, "9.8.7"))[1] == "9.8.7"
        with pytest.raises(texts.ReleaseError, match="is lower than"):
            texts.set_version(text, pattern, "0.0.1")
    assert (
        len({pattern.search((ROOT / name).read_text())[1] for name, pattern in texts.VERSION_FILES.items()})
        == 1
    )


def test_checksums_are_those_that_sha256sum_takes(texts, tmp_path):
    (tmp_path / "a.whl").write_bytes(b"a")
    (tmp_path / "NOTES.md").write_text("not published as a file")
    (tmp_path / "SHA256SUMS").write_text(texts.checksums(tmp_path))
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "a.whl: OK\n"


@pytest.fixture
def repository(tmp_path):
    """A repository of one commit with what scripts/release changes and runs."""
    tree = tmp_path / "tree"
    for name in (
        "scripts/release",
        "scripts/packaging/release_text.py",
        "pyproject.toml",
        "halftunnel_vpn/__init__.py",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    (tree / "CHANGELOG.md").write_text(CHANGELOG)
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "Begin")
    return tree


def environment() -> dict[str, str]:
    names = {
        f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    return os.environ | names | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def git(tree: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=tree, env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


def release(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(tree / "scripts/release"), *words, "--only-texts"]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def test_a_dry_run_does_everything_in_a_clone(repository):
    before = git(repository, "rev-parse", "HEAD")
    done = release(repository, "1.2.3", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"release: \w+ Release 1\.2\.3\n", done.stdout)
    assert "CHANGELOG.md" in done.stdout and "pyproject.toml" in done.stdout
    assert git(repository, "rev-parse", "HEAD") == before
    assert git(repository, "status", "--porcelain", "--untracked-files=no") == git(repository, "tag") == ""


def test_a_release_is_a_commit_and_a_tag_with_the_notes(repository):
    done = release(repository, "1.2.3")
    assert done.returncode == 0, done.stderr
    assert git(repository, "log", "-1", "--format=%s") == "Release 1.2.3\n"
    assert "- A thing." in git(repository, "tag", "--list", "--format=%(contents)", "v1.2.3")
    assert '__version__ = "1.2.3"' in (repository / "halftunnel_vpn/__init__.py").read_text()
    again = release(repository, "1.2.3")
    assert (again.returncode, again.stderr) == (1, "release: there is a tag v1.2.3 already\n")


@pytest.mark.parametrize(
    ("version", "sentence"), [("1.2", "1.2 is no version like 1.2.3"), ("0.0.9", "0.0.9 is lower")]
)
def test_a_wrong_version_changes_nothing(repository, version, sentence):
    done = release(repository, version, "--dry-run")
    assert done.returncode == 1 and done.stderr.startswith(f"release: {sentence}")


def test_what_is_not_committed_is_not_released(repository):
    (repository / "pyproject.toml").write_text("changed\n")
    done = release(repository, "1.2.3")
    assert (done.returncode, done.stderr) == (1, "release: there are changes that are not committed\n")


def test_the_pipelines_run_scripts_that_are_there():
    """Whatever a workflow runs of this tree exists and may be run."""
    seen = set()
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        seen |= set(re.findall(r"\./(scripts/[\w/-]+)", workflow.read_text()))
    assert len(seen) >= 4
    for name in seen:
        assert os.access(ROOT / name, os.X_OK), name


def test_every_action_is_pinned_by_its_commit():
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for used in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", used), used
