"""The optional compiled build: that mypyc takes the sources, and that a build says what it is."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import halftunnel_vpn
from halftunnel_vpn import timers

ROOT = Path(__file__).parents[2]


def test_mypyc_takes_every_module_that_is_to_be_compiled(tmp_path: Path) -> None:
    """Types, restrictions and C code, all but the C compiler, which would take minutes."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/native.py"), "--check", "--into", str(tmp_path / "unused")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout
    assert "mypyc takes all" in done.stdout


def test_what_is_left_out_is_there() -> None:
    build = runpy.run_path(str(ROOT / "scripts/native.py"))
    taken = build["modules"](ROOT)
    for name in build["LEFT_OUT"]:
        assert name == "__init__.py" or (ROOT / "halftunnel_vpn" / name).exists()
        assert f"halftunnel_vpn/{name}" not in taken
    assert all((ROOT / path).is_file() for path in taken)


def test_the_version_tells_whether_it_is_compiled() -> None:
    is_compiled = not timers.__file__.endswith(".py")
    assert halftunnel_vpn.__build__ == halftunnel_vpn.__version__ + (" (compiled)" if is_compiled else "")
