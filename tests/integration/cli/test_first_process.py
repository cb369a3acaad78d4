"""`htvpn` as process 1 of a namespace, as a container's engine starts it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

PREAMBLE = "import os, signal, sys, time; from halftunnel_vpn.cli import first_process; "
BEHIND = PREAMBLE + "first_process.stay_behind(); assert os.getpid() != 1; "

READY = "\nprint('ready', flush=True)\nwhile True: time.sleep(0.05)"
"""Short sleeps: a signal that comes between the check for signals and a sleep is handled after the sleep."""


@pytest.fixture
def first_process():
    """Starts Python code as process 1; ends it."""
    running = []

    def start(code: str) -> subprocess.Popen[str]:
        command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", code]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate(timeout=30)


def inner(process: subprocess.Popen[str]) -> int:
    """The number of process 1, seen from here."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    subprocess.run(["kill", f"-{number}", str(inner(process))], check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_program_and_its_exit_code_comes_back(first_process, number):
    code = f"signal.signal({int(number)}, lambda *_: sys.exit(7))"
    process = first_process(BEHIND + code + READY)
    assert process.stdout.readline() == "ready\n"
    send(process, number)
    assert process.wait(30) == 7


def test_a_program_that_a_signal_kills_ends_as_in_a_shell(first_process):
    process = first_process(BEHIND.rstrip("; ") + READY)
    assert process.stdout.readline() == "ready\n"
    send(process, signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM


ORPHANS = """
for _ in range(3):
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            time.sleep(0.1)
        os._exit(0)
    os.waitpid(middle, 0)
print("orphans", flush=True)
time.sleep(60)
"""


def test_who_has_lost_its_parent_is_reaped(first_process):
    process = first_process(BEHIND.replace("; ", "\n") + ORPHANS)
    assert process.stdout.readline() == "orphans\n"
    first = inner(process)
    deadline = time.monotonic() + 30
    while len(Path(f"/proc/{first}/task/{first}/children").read_text().split()) != 1:
        assert time.monotonic() < deadline, "zombies stay"
        time.sleep(0.05)


def test_the_command_line_stays_behind_where_it_is_process_1(first_process):
    process = first_process("import sys; sys.argv = ['htvpn', '--version']; "
                            "from halftunnel_vpn.cli.main import entry_point; entry_point()")  # fmt: skip
    assert process.stdout.readline().startswith("htvpn ")
    assert process.wait(30) == 0
