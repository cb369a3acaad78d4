"""The loop that a process gets, with uvloop installed and without."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys

import pytest

from halftunnel_vpn.transport.loop import run

ASK = """
import asyncio, sys
{before}
from halftunnel_vpn.transport.loop import run

async def main():
    return type(asyncio.get_running_loop()).__module__

print(run(main()))
"""


@pytest.mark.parametrize(
    ("before", "expected"), [("", "uvloop"), ("sys.modules['uvloop'] = None", "asyncio.unix_events")]
)
def test_uvloop_runs_where_it_is_installed(before, expected):
    command = [sys.executable, "-W", "error", "-c", ASK.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


def test_the_loop_enables_the_collector_that_a_start_had_disabled():
    async def is_enabled():
        return gc.isenabled()

    gc.disable()
    try:
        assert run(is_enabled())
    finally:
        gc.enable()


def test_what_the_main_coroutine_returns_and_raises_comes_out():
    async def answer():
        await asyncio.sleep(0)
        return 42

    async def fail():
        raise LookupError("as it is")

    assert run(answer()) == 42
    with pytest.raises(LookupError, match="as it is"):
        run(fail())
