"""Drives the pure floors from an event loop: the clock, the timer wheel, and one pump for many wakes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from random import random

from halftunnel_vpn.timers import Wheel
from halftunnel_vpn.transport.kernel.timer_fd import TimerFd

BLUR = 0.004
"""Seconds; less than the step of the timer wheel, so that steps are run in order."""


class Driver:
    """Clock and timers of one process.

    ``clock`` is the monotonic time in seconds; ``wheel`` runs its timers on ``loop``.
    """

    __slots__ = ("_alarm", "_exact", "_held", "_is_closed", "_is_running", "clock", "loop", "wheel")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.clock: Callable[[], float] = time.monotonic
        self.wheel = Wheel(self._set_alarm, self._timer_failed)
        self._alarm: asyncio.TimerHandle | None = None
        # The kernel's own timer, once deadlines are blurred.
        self._exact: TimerFd | None = None
        self._is_closed = False
        # Whether the timers are being called back: the alarm is set once behind all of them.
        self._is_running = False
        # Pumps that were woken while they are held; None while they are not.
        self._held: list[Pump] | None = None

    def hold(self) -> None:
        """Let pumps that are woken wait for :meth:`release`, which must follow in the same callback."""
        self._held = []

    def release(self) -> None:
        """Run the pumps that were woken since :meth:`hold`: sooner than the loop would, and for less."""
        held, self._held = self._held, None
        if held:
            for pump in held:
                try:
                    pump.flush()
                except Exception as error:  # one that fails must not stop the others
                    self.loop.call_exception_handler({"message": "a pump failed", "exception": error})

    def soon(self, pump: Pump) -> None:
        """Run ``pump`` soon: with the others that are held, or in the next turn of the loop."""
        if self._held is not None:
            self._held.append(pump)
        else:
            self.loop.call_soon(pump.flush)

    def pump(self, work: Callable[[float], None]) -> Pump:
        """Return a pump for ``work``: it runs once, soon, for any number of wakes."""
        return Pump(self, work)

    def blur(self) -> None:
        """From now on run timers at a random time within BLUR after their deadline.

        Otherwise a busy loop runs them about 0.1 ms sooner than an idle one, which tells data from padding to
        those who watch records on a clock. Do nothing where the kernel has no exact timer.
        """
        if self._exact is not None or self._is_closed:
            return
        try:
            self._exact = TimerFd()
        except OSError:
            return
        self.loop.add_reader(self._exact.fd, self._run_exact, self._exact)
        deadline = self.wheel.next_deadline
        if deadline is not None:
            self._set_alarm(deadline)

    def close(self) -> None:
        """Stop all timers."""
        self._is_closed = True
        if self._exact is not None:
            self.loop.remove_reader(self._exact.fd)
            self._exact.close()
            self._exact = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self, deadline: float) -> None:
        if self._is_closed or self._is_running:
            return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._exact is not None:
            self._exact.set(deadline + random() * BLUR)
            return
        # whole milliseconds, rounded up: the loops round them, and one that wakes too early only spins
        delay = math.ceil((deadline - self.clock()) * 1000) / 1000
        self._alarm = self.loop.call_later(max(0.0, delay), self._run)

    def _run_exact(self, timer: TimerFd) -> None:
        if not self._run() and not self._is_closed:
            timer.clear()  # where it has been set again, that has cleared it

    def _run(self) -> bool:
        """Run the timers that are due; return whether others are armed."""
        self._alarm = None
        self._is_running = True
        try:
            self.wheel.run(self.clock())
        finally:
            self._is_running = False
            deadline = self.wheel.next_deadline
            if deadline is not None:
                self._set_alarm(deadline)
        return deadline is not None

    def _timer_failed(self, error: Exception) -> None:
        self.loop.call_exception_handler({"message": "the callback of a timer failed", "exception": error})


class Pump:
    """Work that is done once per turn of the event loop, however often it is asked for."""

    __slots__ = ("_driver", "_is_due", "_work")

    def __init__(self, driver: Driver, work: Callable[[float], None]) -> None:
        self._driver = driver
        self._work = work
        self._is_due = False

    def wake(self) -> None:
        """Run the work soon."""
        if not self._is_due:
            self._is_due = True
            self._driver.soon(self)

    def flush(self) -> None:
        """Run the work now if it is due."""
        if self._is_due:
            self._is_due = False
            self._work(self._driver.clock())
