"""The first process of a container: it passes signals on to the program, and reaps orphans.

The kernel gives process 1 of a namespace the orphans of all others, and does not give it a
signal for which it has no handler (pid_namespaces(7)). A program that waits for its own children alone leaves
zombies behind.
"""

from __future__ import annotations

import os
import signal

PASSED_ON = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
"""Signals that a container's engine, or a person, sends to process 1 and means for the program."""

KILLED = 128
"""What a shell adds to the number of the signal that ended a program."""


def stay_behind() -> None:
    """Fork; return in the child, which is to be the program. The parent ends when the child does.

    Call it before any thread is started.
    """
    waited_for = (*PASSED_ON, signal.SIGCHLD)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        number = signal.sigwait(waited_for)
        if number == signal.SIGCHLD:
            code = _reap(child)
            if code is not None:
                os._exit(code)
        else:
            os.kill(child, number)


def _reap(child: int) -> int | None:
    """Reap all ended processes; return the exit code of ``child`` once it has ended."""
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if ended == 0:
            return code
        if ended == child:
            found = os.waitstatus_to_exitcode(status)
            code = found if found >= 0 else KILLED - found
