"""Compiles the pure floors with mypyc into a copy of the package; run by scripts/compile, in the tree.

The sources are the same for both: without the compiled modules beside them, Python runs the sources.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

PACKAGE = "halftunnel_vpn"

COMPILED = ("protocol", "inet", "session", "flow", "timers.py", "counters.py", "icmp_error.py")
"""What is compiled: the pure floors, which every packet goes through."""

LEFT_OUT = {
    "__init__.py": "has no code but a docstring and, in flow/tcp, names for others",
    "errors.py": "interpreted classes derive from these exceptions, which compiled classes do not allow",
    "config": "is read once, at the start",
    "protocol/certificates.py": "is used once, when an exit is made",
    "protocol/handshake.py": "is used once a session, and waits for X25519",
    "protocol/handshake_payloads.py": "as protocol/handshake.py",
    "protocol/join.py": "is used once a leg",
    "protocol/keys.py": "as protocol/handshake.py",
    "protocol/noise.py": "as protocol/handshake.py",
}
"""What of the pure floors is not, and why."""

LIBRARY = f"{PACKAGE}.native"
"""What the library with all the code is named after; the modules are small ones that ask it."""

STAMP = "stamp"
"""A file beside the result that says of what it is the result."""


class Toolchain(NamedTuple):
    """What makes extension modules for one Python on one kind of machine."""

    compiler: Sequence[str]
    linker: Sequence[str]
    # Directories with Python's headers.
    includes: Sequence[str]
    # The end of a module's file name, with the dot.
    suffix: str


def own_toolchain() -> Toolchain:
    """The tools that made this Python, for this Python."""
    variables = {name: str(value) for name, value in sysconfig.get_config_vars().items()}
    return Toolchain(
        compiler=[word for name in ("CC", "CFLAGS", "CCSHARED") for word in shlex.split(variables[name])],
        linker=shlex.split(variables["LDSHARED"]),
        includes=[sysconfig.get_path("include"), sysconfig.get_path("platinclude")],
        suffix=variables["EXT_SUFFIX"],
    )


def modules(top: Path) -> list[str]:
    """The files to compile, as paths below ``top``, the directory of the package."""
    package = top / PACKAGE
    found: list[Path] = []
    for name in COMPILED:
        place = package / name
        found += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return [
        str(path.relative_to(top))
        for path in found
        if not {path.name, str(path.relative_to(package))} & LEFT_OUT.keys()
    ]


def digest(*more: str) -> str:
    """Another one for every change of the sources, of this file, of Python, of mypyc and of ``more``."""
    import mypy.version

    made_with = (platform.python_version(), sys.prefix, mypy.version.__version__, *more)
    hashed = hashlib.sha256("\0".join(made_with).encode())
    for path in [Path(__file__), *sorted(Path(PACKAGE).rglob("*.py"))]:
        hashed.update(f"\0{path}\0".encode() + path.read_bytes())
    return hashed.hexdigest()


def generate(top: Path, generated: Path) -> list[Any]:
    """Have mypyc write C for the package in ``top``; returns its extensions (setuptools.Extension)."""
    from mypyc.build import mypycify

    with chdir(top):
        return list(mypycify(modules(top), group_name=LIBRARY, target_dir=str(generated), multi_file=True))


def build(top: Path, extensions: Sequence[Any], generated: Path, level: str, tools: Toolchain) -> None:
    """Compile every extension with optimisation ``level`` and put it into the package in ``top``.

    Not left to setuptools, which would compile on one core. Raises CalledProcessError.
    """
    # the last one: mypyc looks for the header of a library inside a package in the wrong place
    always = [*tools.includes, str(generated / PACKAGE)]

    def compiled(source: str, directories: Sequence[str]) -> str:
        result = str(Path(source).with_suffix(f"{tools.suffix}.o"))
        includes = [f"-I{directory}" for directory in [*always, *directories]]
        run([*tools.compiler, *includes, f"-O{level}", "-g0", "-w", "-c", source, "-o", result])
        return result

    def linked(name: str, objects: Sequence[Future[str]]) -> None:
        target = top / (name.replace(".", "/") + tools.suffix)
        # -Bsymbolic: calls inside the library go straight to the function, not through a table
        run([*tools.linker, "-Wl,-Bsymbolic", *(each.result() for each in objects), "-o", str(target)])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        started = [
            (each.name, [pool.submit(compiled, source, each.include_dirs) for source in each.sources])
            for each in extensions
        ]
        # Behind all that compiles: who links waits for nothing that has not begun.
        for each in [pool.submit(linked, name, objects) for name, objects in started]:
            each.result()


def run(command: Sequence[str]) -> None:
    """Run it in silence. Raises CalledProcessError with what it said."""
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def fail(sentence: str) -> NoReturn:
    """End with one sentence."""
    sys.exit(f"compile: {sentence}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/compile")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    into: Path = arguments.into.absolute()
    level = "0" if arguments.quick else "3"
    stamp, is_from = digest(level), into / STAMP
    if not arguments.check and is_from.is_file() and is_from.read_text() == stamp:
        print(f"compile: nothing has changed since {into} was made")
        return
    if into.exists() and not is_from.is_file():
        fail(f"{into} is there already and was not made by this: name another directory")
    with tempfile.TemporaryDirectory() as scratch:
        top, generated = Path(scratch, "top"), Path(scratch, "c")
        shutil.copytree(PACKAGE, top / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        count = len(modules(top))
        try:
            extensions = generate(top, generated)
        except SystemExit:
            fail("mypyc refuses these sources; what it says is above")
        if arguments.check:
            print(f"compile: mypyc takes all {count} modules")
            return
        print(f"compile: {count} modules with mypyc into {into}", flush=True)
        try:
            build(top, extensions, generated, level, own_toolchain())
        except subprocess.CalledProcessError as error:
            fail(f"the C compiler fails: {error.stdout.strip() or error}")
        (top / STAMP).write_text(stamp)
        if into.exists():
            shutil.rmtree(into)
        shutil.copytree(top, into)


if __name__ == "__main__":
    main()
