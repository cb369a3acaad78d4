"""The texts that a release changes or makes: changelog, version, notes, checksums. Run by scripts/release."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, NoReturn

VERSION: Final = re.compile(r"\d+\.\d+\.\d+")
_SECTION: Final = re.compile(r"^## \[(.+?)\](?: - \d{4}-\d\d-\d\d)?$", re.MULTILINE)
VERSION_FILES: Final = {
    "pyproject.toml": re.compile(r'^version = "(.+)"$', re.MULTILINE),
    "halftunnel_vpn/__init__.py": re.compile(r'^__version__ = "(.+)"$', re.MULTILINE),
}
"""Where the version stands, and how."""

CHECKSUMS: Final = "SHA256SUMS"


class ReleaseError(Exception):
    """Why there can be no release; one sentence."""


def section(changelog: str, name: str) -> str:
    """Return what the changelog says of a version, or of "Unreleased". Raises ReleaseError without it."""
    found = list(_SECTION.finditer(changelog))
    for number, heading in enumerate(found):
        if heading[1] == name:
            end = found[number + 1].start() if number + 1 < len(found) else len(changelog)
            return changelog[heading.end() : end].strip()
    raise ReleaseError(f"CHANGELOG.md has no section [{name}]")


def cut(changelog: str, version: str, day: date) -> str:
    """Return the changelog with what is unreleased as ``version``, and an empty section for what follows.

    A changelog that has the version already keeps its text; then only nothing may be unreleased.
    """
    unreleased = section(changelog, "Unreleased")
    if f"## [{version}]" in changelog:
        if unreleased:
            raise ReleaseError(
                f"CHANGELOG.md has both [{version}] and unreleased changes; choose the next version"
            )
        return changelog
    if not unreleased:
        raise ReleaseError("nothing is unreleased: CHANGELOG.md says of no change")
    return changelog.replace(
        "## [Unreleased]\n", f"## [Unreleased]\n\n## [{version}] - {day.isoformat()}\n", 1
    )


def set_version(text: str, pattern: re.Pattern[str], version: str) -> str:
    """Return ``text`` with another version. Raises ReleaseError for one that is lower."""
    found = pattern.search(text)
    if found is None:
        raise ReleaseError("the version cannot be found")
    if tuple(map(int, found[1].split("."))) > tuple(map(int, version.split("."))):
        raise ReleaseError(f"{version} is lower than {found[1]}, which is here already")
    return text[: found.start(1)] + version + text[found.end(1) :]


def checksums(directory: Path) -> str:
    """Return a line for each file, as sha256sum writes them."""
    files = sorted(
        path for path in directory.iterdir() if path.is_file() and path.name not in (CHECKSUMS, "NOTES.md")
    )
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def fail(sentence: object) -> NoReturn:
    """End with one sentence."""
    sys.exit(f"release: {sentence}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/packaging/release_text.py")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "notes"):
        commands.add_parser(name).add_argument("version")
    commands.add_parser("checksums").add_argument("directory", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "checksums":
        (arguments.directory / CHECKSUMS).write_text(checksums(arguments.directory))
        return
    version: str = arguments.version
    if not VERSION.fullmatch(version):
        fail(f"{version} is no version like 1.2.3")
    changelog = Path("CHANGELOG.md")
    try:
        if arguments.command == "notes":
            print(section(changelog.read_text(encoding="utf-8"), version))
            return
        changelog.write_text(cut(changelog.read_text(encoding="utf-8"), version, datetime.now(UTC).date()))
        for name, pattern in VERSION_FILES.items():
            path = Path(name)
            path.write_text(set_version(path.read_text(encoding="utf-8"), pattern, version))
    except ReleaseError as error:
        fail(error)


if __name__ == "__main__":
    main()
