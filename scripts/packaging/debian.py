"""One .deb from a directory tree: control files, checksums, and what every package of Debian has."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from email.utils import formatdate
from pathlib import Path
from typing import Final, NamedTuple

from targets import run

MAINTAINER: Final = "The Half-Tunnel authors <halftunnel@example.org>"
HOMEPAGE: Final = "https://github.com/half-tunnel/half-tunnel"
SCRIPTS: Final = Path(__file__).with_name("debian")


class Package(NamedTuple):
    """What one package says of itself."""

    name: str
    architecture: str
    depends: str
    recommends: str
    # The first line, and the text below it.
    summary: str
    description: str
    # Name of its main unit, for the check before installation; empty if it has none.
    unit: str = ""


def compress(text: str, target: Path) -> None:
    """Write ``text`` to ``target`` by gzip, the same bytes every time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def documents(
    tree: Path, package: Package, version: str, *, copyright: str, changelog: str, epoch: int
) -> None:
    """Write copyright and changelogs of a package."""
    place = tree / "usr/share/doc" / package.name
    place.mkdir(parents=True, exist_ok=True)
    (place / "copyright").write_text(copyright, encoding="utf-8")
    compress(changelog, place / "changelog.gz")
    entry = (
        f"halftunnel-vpn ({version}) unstable; urgency=medium\n\n"
        f"  * New version; changelog.gz says what changed.\n\n"
        f" -- {MAINTAINER}  {formatdate(epoch)}\n"
    )
    compress(entry, place / "changelog.Debian.gz")


def overrides(tree: Path, package: Package, tags: dict[str, str]) -> None:
    """Write why some findings of lintian are no mistakes: tag with its context -> reason."""
    place = tree / "usr/share/lintian/overrides" / package.name
    place.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# {reason}\n{package.name}: {tag}\n" for tag, reason in tags.items()]
    place.write_text("".join(lines), encoding="utf-8")


def build(tree: Path, package: Package, version: str, output: Path, epoch: int, compression: str) -> Path:
    """Return the .deb that has the files of ``tree``, which is taken away."""
    for path in sorted(tree.rglob("*")):
        if path.is_symlink():
            continue
        is_program = path.is_file() and ("/bin/" in str(path) or path.suffix == ".rtupdate")
        path.chmod(0o755 if path.is_dir() or is_program else 0o644)
    tree.chmod(0o755)
    files = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    sums = "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in files
    )
    size = sum((path.stat().st_size + 1023) // 1024 for path in files) + sum(
        1 for path in tree.rglob("*") if path.is_dir()
    )
    control = tree / "DEBIAN"
    control.mkdir()
    fields = {
        "Package": package.name, "Source": "halftunnel-vpn" if package.name != "halftunnel-vpn" else "",
        "Version": version, "Architecture": package.architecture, "Maintainer": MAINTAINER,
        "Installed-Size": str(size), "Depends": package.depends, "Recommends": package.recommends,
        "Section": "net", "Priority": "optional", "Homepage": HOMEPAGE,
        "Description": package.summary + "".join(
            f"\n {line}" if line else "\n ." for line in package.description.strip().splitlines()
        ),
    }  # fmt: skip
    (control / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items() if value))
    (control / "md5sums").write_text(sums)
    for name in ("preinst", "postinst", "prerm", "postrm"):
        own = SCRIPTS / f"{package.name}.{name}"
        source = own if own.exists() else SCRIPTS / name
        if not source.exists() or (source is not own and not package.unit):
            continue
        text = source.read_text().replace("@PACKAGE@", package.name).replace("@UNIT@", package.unit)
        (control / name).write_text(text)
        (control / name).chmod(0o755)
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    target = output / f"{package.name}_{version}_{package.architecture}.deb"
    run(
        ["dpkg-deb", "--build", "--root-owner-group", f"-Z{compression}", tree, target],
        env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)},
    )
    shutil.rmtree(tree)
    return target
