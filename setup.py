"""A compiled wheel where HALFTUNNEL_COMPILED is 1 (cibuildwheel), the pure one everywhere else."""

from __future__ import annotations

import os
import runpy
import shutil
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = Path("scripts/native.py")


class CompiledFloors(build_ext):
    """Has scripts/native.py compile the modules, as scripts/compile does."""

    def run(self) -> None:
        """Put every compiled module beside its source."""
        native = runpy.run_path(str(NATIVE))
        with tempfile.TemporaryDirectory() as scratch:
            top, generated = Path(scratch, "top"), Path(scratch, "c")
            shutil.copytree(native["PACKAGE"], top / native["PACKAGE"])
            extensions = native["generate"](top, generated)
            native["build"](top, extensions, generated, "3", native["own_toolchain"]())
            for path in top.rglob("*.so"):
                target = Path(self.build_lib, path.relative_to(top))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    def get_outputs(self) -> list[str]:
        """Nothing beyond what is in build_lib already."""
        return []


if os.environ.get("HALFTUNNEL_COMPILED") == "1":
    # The extension only says that the wheel is for one kind of machine.
    setup(ext_modules=[Extension("halftunnel_vpn.native", [])], cmdclass={"build_ext": CompiledFloors})
else:
    setup()
