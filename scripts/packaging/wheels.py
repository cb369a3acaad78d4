"""The packages of others in the .deb: wheels of the versions in requirements.txt, merged into one directory.

Extension modules carry their Python in their names, so those of several Pythons lie side by side.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Final

from targets import PYTHONS, Architecture, run

REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
"""Every version and the hashes of its files; scripts/package --lock writes it again."""

PLATFORMS: Final = (
    "manylinux_2_34",
    "manylinux_2_28",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_5",
    "manylinux1",
)

LEFT_OUT: Final = (".c", ".h", ".pyx", ".pxd", ".pxi", ".pyi")
"""Ends of the names of files that nothing needs at run time."""


def download(architecture: Architecture, pythons: tuple[str, ...], cache: Path) -> Path:
    """Return a directory with the wheels for ``architecture``, in one directory for each of ``pythons``."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    place = cache / f"wheels-{digest}-{architecture.debian}"
    for python in pythons:
        directory = place / python
        if directory.is_dir():
            continue
        draft = directory.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        platforms = [f"--platform={name}_{architecture.wheel}" for name in PLATFORMS]
        run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
             "--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation=cp",
             f"--python-version={python}", *platforms, "--dest", draft, "--requirement", REQUIREMENTS]
        )  # fmt: skip
        draft.rename(directory)
    return place


def merge(wheels: Path, pythons: tuple[str, ...], site: Path) -> None:
    """Unpack the wheels of all ``pythons`` into ``site``. Ends when two have different sources of a name."""
    seen: dict[str, bytes] = {}
    for python in pythons:
        for wheel in sorted((wheels / python).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith((*LEFT_OUT, "/")) or ".data/" in name or "/tests/" in name:
                        continue
                    content = archive.read(name)
                    if name in seen and seen[name] != content and ".dist-info/" not in name:
                        raise SystemExit(
                            f"package: {wheel.name} has another {name} than the wheel of Python {PYTHONS[0]}"
                        )
                    if name in seen:
                        continue
                    seen[name] = content
                    target = site / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
    # What tells pip which files there are; here dpkg knows that, and the files of several wheels are mixed.
    for name in ("RECORD", "WHEEL", "INSTALLER", "top_level.txt", "entry_points.txt"):
        for path in site.glob(f"*.dist-info/{name}"):
            path.unlink()


COMMON: Final = {
    "Apache License": "/usr/share/common-licenses/Apache-2.0",
    "GNU GENERAL PUBLIC LICENSE": "/usr/share/common-licenses/GPL-2",
}
"""Licences that every Debian has a copy of, by their title."""

MAX_BEFORE: Final = 200
"""Characters of a licence's file before its title: whose copyright it is."""


def licences(site: Path) -> list[tuple[str, str, str]]:
    """Return name with version, licence and its text for each package of others in ``site``."""
    found = []
    for directory in sorted(site.glob("*.dist-info")):
        metadata = (directory / "METADATA").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        fields = {}
        for line in metadata:
            name, _, value = line.partition(": ")
            if name == "Classifier" and value.startswith("License"):
                fields.setdefault("License-Classifier", value.rpartition(":: ")[2])
            else:
                fields.setdefault(name, value)
        licence = (
            fields.get("License-Expression") or fields.get("License-Classifier") or fields.get("License", "")
        )
        texts = [
            common_or_text(path.read_text(encoding="utf-8", errors="replace"))
            for path in sorted(directory.rglob("*"))
            if path.is_file() and path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE"))
        ]
        found.append((f"{fields['Name']} {fields['Version']}", licence, "\n\n".join(texts)))
    return found


def common_or_text(text: str) -> str:
    """Return where Debian has the licence, or its text."""
    for title, place in COMMON.items():
        before, found, _ = text.partition(title)
        if found and len(before) < MAX_BEFORE:
            return f"{before.strip()}\n\nThe text of this licence is in {place}.".strip()
    return text
