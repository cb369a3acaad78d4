"""A timer of the kernel that is a file, exact to some microseconds: timerfd_create(2).

Event loops round their own timers to whole milliseconds, counted from the moment at which they last waited.
So how late one is depends on what else the loop had to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_TFD_TIMER_ABSTIME: Final = 1
_EXPIRATIONS: Final = 8
"""Bytes that a read returns."""

_ItimerSpec = ctypes.c_long * 4
"""struct itimerspec: seconds and nanoseconds of the interval, and of the first expiration."""


class TimerFd:
    """One timer. Raises OSError when it is made where the C library or the kernel has none."""

    __slots__ = ("_set_time", "_spec", "_spec_pointer", "fd")

    def __init__(self) -> None:
        # One for every setting of the timer, which happens a hundred times a second.
        self._spec = _ItimerSpec()
        self._spec_pointer = ctypes.byref(self._spec)
        library = ctypes.CDLL(None, use_errno=True)
        try:
            create, self._set_time = library.timerfd_create, library.timerfd_settime
        except AttributeError as error:
            raise OSError("this C library has no timerfd") from error
        # A file that is readable once the timer has expired.
        self.fd: int = create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, deadline: float) -> None:
        """Expire at ``deadline``, in seconds of the monotonic clock; at once if that is past.

        The file is unreadable until then, also after an expiration that nobody has cleared.
        """
        # One more nanosecond: an expiration at zero would mean none.
        after = int(max(deadline, 0.0) * 1e9) + 1
        spec = self._spec
        spec[2], spec[3] = divmod(after, 1_000_000_000)
        if self._set_time(self.fd, _TFD_TIMER_ABSTIME, self._spec_pointer, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Make the file unreadable again after an expiration."""
        with contextlib.suppress(BlockingIOError):  # set again in the meantime
            os.read(self.fd, _EXPIRATIONS)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
