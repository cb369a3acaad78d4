"""Builds the Debian packages; run by scripts/package, in the tree.

halftunnel-vpn has the program in /usr/lib/halftunnel, laid out as a virtual environment over Debian's
python3. The releases' own websockets and cryptography are too old, so the versions of requirements.txt are
in it. Modules for several Pythons lie side by side: one .deb serves Debian 12 and 13, and goes on across an
upgrade of the release. Where nothing is compiled for a Python, the sources run. halftunnel-client and
halftunnel-server have the units. The same sources make the same packages.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import runpy
import shutil
import subprocess
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import debian
import descriptions
import man_pages
import wheels
from targets import ARCHITECTURES, COMPILED_FOR, PYTHONS, Architecture, headers, run

from halftunnel_vpn.cli import installation

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = "usr/lib/halftunnel"
UNIT_PLACE: Final = "usr/lib/systemd/system"
LEVEL: Final = "3"

LIBC: Final = "libc6 (>= 2.36)"
"""Of the oldest release, where everything is compiled."""

COMPILER_OPTIONS: Final = (
    "-DNDEBUG", "-fPIC", "-fwrapv", "-fno-strict-aliasing", "-fstack-protector-strong",
    "-D_FORTIFY_SOURCE=2", "-O3",
)  # fmt: skip
LINKER_OPTIONS: Final = ("-shared", "-Wl,-O1", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,--build-id=sha1")

OVERRIDES: Final = {"initial-upload-closes-no-bugs *": "The packages are not uploaded to Debian."}
"""Findings of lintian that are no mistakes, with the reason."""

PROGRAM_OVERRIDES: Final = OVERRIDES | {
    "shared-library-lacks-prerequisites *": "Modules of mypyc find its library through Python.",
    "unusual-interpreter *": "The program's own name of python3, and modules of others that nobody executes.",
}
"""Those of halftunnel-vpn."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/package", description="Build the Debian packages.")
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES, default=[own_architecture()])
    parser.add_argument(
        "--output", type=Path, default=ROOT / "dist", help="where the packages go (default: dist)"
    )
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "build/packages", help="what is kept between builds"
    )
    parser.add_argument("--pure", action="store_true", help="compile nothing")
    parser.add_argument("--pythons", nargs="+", choices=PYTHONS, default=PYTHONS, help="to bring modules for")
    parser.add_argument("--compression", choices=("xz", "gzip", "none"), default="xz", help="of the packages")
    parser.add_argument("--revision", default="1", help="of the packages, after the version (default: 1)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = f"{project['version']}-{arguments.revision}"
    pythons = tuple(arguments.pythons)
    for name in arguments.arch:
        architecture = ARCHITECTURES[name]
        compiled = {} if arguments.pure else compile_modules(architecture, arguments.cache)
        for path in packages(architecture, pythons, compiled, version, arguments):
            print(path)


def own_architecture() -> str:
    """The architecture of this machine, as Debian calls it."""
    return run(["dpkg", "--print-architecture"]).strip()


def epoch() -> int:
    """The time that all files of the packages have: that of the last commit."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    done = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 0 and done.stdout.strip():
        return int(done.stdout)
    return int((ROOT / "pyproject.toml").stat().st_mtime)


# --- the compiled modules -------------------------------------------------------------------------


def compile_modules(architecture: Architecture, cache: Path) -> dict[str, Path]:
    """Return Python -> a directory with our compiled modules for it; from the cache if nothing changed."""
    if shutil.which(architecture.compiler) is None:
        raise SystemExit(f"package: {architecture.compiler} is missing; install it, or build with --pure")
    native = runpy.run_path(str(ROOT / "scripts/native.py"))
    with_what = " ".join(
        [*COMPILER_OPTIONS, *LINKER_OPTIONS, run([architecture.compiler, "-dumpfullversion"])]
    )
    os.chdir(ROOT)
    digest = hashlib.sha256(f"{native['digest'](LEVEL)} {with_what}".encode()).hexdigest()[:16]
    found = {python: cache / f"native-{digest}-{architecture.debian}-{python}" for python in COMPILED_FOR}
    missing = [python for python, place in found.items() if not place.is_dir()]
    if not missing:
        return found
    with tempfile.TemporaryDirectory() as scratch:
        top, generated = Path(scratch, "top"), Path(scratch, "c")
        shutil.copytree(
            ROOT / native["PACKAGE"],
            top / native["PACKAGE"],
            ignore=shutil.ignore_patterns("__pycache__", "*.so"),
        )
        extensions = native["generate"](top, generated)
        for python in missing:
            included = headers(python, architecture, cache) / "usr/include"
            tools = native["Toolchain"](
                compiler=[architecture.compiler, *COMPILER_OPTIONS, f"-ffile-prefix-map={scratch}=."],
                linker=[architecture.compiler, *LINKER_OPTIONS],
                includes=[str(included / f"python{python}"), str(included)],
                suffix=f".cpython-{python.replace('.', '')}-{architecture.triplet}.so",
            )
            result = Path(scratch, python)
            native["build"](empty_copy(top, result), extensions, generated, LEVEL, tools)
            draft = found[python].with_suffix(".new")
            shutil.rmtree(draft, ignore_errors=True)
            for path in result.rglob("*.so"):
                target = draft / path.relative_to(result)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            draft.rename(found[python])
    return found


def empty_copy(top: Path, result: Path) -> Path:
    """Make the directories of ``top`` in ``result``, without files."""
    for directory in top.rglob("*"):
        if directory.is_dir():
            (result / directory.relative_to(top)).mkdir(parents=True)
    return result


# --- the packages ---------------------------------------------------------------------------------


def packages(
    architecture: Architecture,
    pythons: tuple[str, ...],
    compiled: dict[str, Path],
    version: str,
    arguments: argparse.Namespace,
) -> list[Path]:
    """Return the three packages."""
    moment = epoch()
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch, "halftunnel-vpn")
        site = base / PROGRAM / "site"
        site.mkdir(parents=True)
        wheels.merge(wheels.download(architecture, pythons, arguments.cache), pythons, site)
        copyright = copyrights(site)
        program(base, site, compiled, architecture)
        manual_and_completion(base, moment)
        pythons_needed = f"python3 (>= {pythons[0]}), python3 (<< {after(pythons[-1])}~)"
        same = f"halftunnel-vpn (= {version})"
        program_package = debian.Package(
            "halftunnel-vpn", architecture.debian, f"{LIBC}, libgcc-s1, {pythons_needed}", "",
            *descriptions.PROGRAM,
        )  # fmt: skip
        client = debian.Package(
            "halftunnel-client", architecture.debian, f"{same}, nftables, passwd, python3-systemd", "systemd",
            *descriptions.CLIENT, "halftunnel.service",
        )  # fmt: skip
        exit_ = debian.Package(
            "halftunnel-server", architecture.debian, same, "systemd", *descriptions.SERVER,
            "halftunnel-server.service",
        )  # fmt: skip
        trees = [(base, program_package)]
        for package, role in ((client, "client"), (exit_, "server")):
            tree = Path(scratch, package.name)
            (tree / UNIT_PLACE).mkdir(parents=True)
            for name in installation.UNITS[role]:
                (tree / UNIT_PLACE / name).write_text(installation.unit_text(name, Path("/", PROGRAM)))
            trees.append((tree, package))
        user_unit = base / "usr/lib/systemd/user/halftunnel-proxy.service"
        user_unit.parent.mkdir(parents=True)
        user_unit.write_text(installation.unit_text("user/halftunnel-proxy.service", Path("/", PROGRAM)))
        made = []
        for tree, package in trees:
            text = copyright if package is program_package else copyrights(None)
            debian.documents(tree, package, version, copyright=text, changelog=changelog, epoch=moment)
            debian.overrides(tree, package, PROGRAM_OVERRIDES if package is program_package else OVERRIDES)
            made.append(debian.build(tree, package, version, arguments.output, moment, arguments.compression))
    return made


def after(python: str) -> str:
    """The version of Python that follows: 3.15 for 3.14."""
    major, minor = python.split(".")
    return f"{major}.{int(minor) + 1}"


def program(base: Path, site: Path, compiled: dict[str, Path], architecture: Architecture) -> None:
    """Put our package beside those of others, and what makes a virtual environment of it."""
    shutil.copytree(ROOT / "halftunnel_vpn", site / "halftunnel_vpn", ignore=left_out)
    for modules in compiled.values():
        shutil.copytree(modules, site, dirs_exist_ok=True)
    strip = f"{architecture.triplet}-strip"
    for path in site.rglob("*.so"):
        run([strip, "--strip-unneeded", "--remove-section=.comment", "--remove-section=.note", path])
    place = base / PROGRAM
    (place / "bin").mkdir()
    for name in ("python", "python3"):
        (place / "bin" / name).symlink_to("../../../bin/python3")
    (place / "bin/htvpn").write_text(
        f"#!/{PROGRAM}/bin/python -I\nfrom halftunnel_vpn.cli.main import entry_point\n\nentry_point()\n"
    )
    (place / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    for python in PYTHONS:
        (place / f"lib/python{python}").mkdir(parents=True)
        (place / f"lib/python{python}/site-packages").symlink_to("../../site")
    (base / "usr/bin").mkdir(parents=True)
    (base / "usr/bin/htvpn").symlink_to("../lib/halftunnel/bin/htvpn")
    hook = base / "usr/share/python3/runtime.d/halftunnel-vpn.rtupdate"
    hook.parent.mkdir(parents=True)
    shutil.copyfile(debian.SCRIPTS / "halftunnel-vpn.rtupdate", hook)


def left_out(directory: str, names: list[str]) -> set[str]:
    """Return what of our package a .deb has in another place, or does not need; for shutil.copytree."""
    unneeded = {name for name in names if name in ("__pycache__", "completion") or name.endswith(".so")}
    if Path(directory).name == "configs":
        unneeded |= {name for name in names if not name.endswith(".toml")}
    return unneeded


def manual_and_completion(base: Path, moment: int) -> None:
    """Write manual pages, completion, examples and the schemas of the configuration."""
    examples = {
        role: (ROOT / f"configs/{role}.toml").read_text(encoding="utf-8") for role in ("client", "server")
    }
    day = datetime.fromtimestamp(moment, UTC).date()
    for name, text in man_pages.pages(examples, day).items():
        debian.compress(text, base / f"usr/share/man/man{name[-1]}/{name}.gz")
    completion = ROOT / "halftunnel_vpn/share/completion"
    for source, target in (
        ("htvpn.bash", "usr/share/bash-completion/completions/htvpn"),
        ("htvpn.zsh", "usr/share/zsh/vendor-completions/_htvpn"),
        ("htvpn.fish", "usr/share/fish/vendor_completions.d/htvpn.fish"),
    ):
        (base / target).parent.mkdir(parents=True)
        shutil.copyfile(completion / source, base / target)
    # `htvpn completion` prints the same files.
    shutil.copytree(completion, base / PROGRAM / "site/halftunnel_vpn/share/completion")
    place = base / "usr/share/doc/halftunnel-vpn/examples"
    place.parent.mkdir(parents=True)
    place.symlink_to("../../../lib/halftunnel/site/halftunnel_vpn/share/configs")


def copyrights(site: Path | None) -> str:
    """Return the copyright file: ours, and those of the packages of others in ``site``."""
    own = (ROOT / "LICENSE").read_text(encoding="utf-8").strip()
    parts = [f"Half-Tunnel, {debian.HOMEPAGE}\n\n{own}"]
    for name, licence, text in wheels.licences(site) if site is not None else ():
        parts.append(f"{name} is in this package too. Licence: {licence}.\n\n{text.strip()}")
    return ("\n\n" + "-" * 80 + "\n\n").join(parts) + "\n"


if __name__ == "__main__":
    main()
