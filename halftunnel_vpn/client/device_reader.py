"""Reads frames of the host from the TUN device in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.flow.tracker import FlowTracker
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.tun.device import TunDevice

FRAMES_PER_WAKE = 256
"""Frames read from the TUN device before other events get their turn."""

SILENCE = 0.001
"""Seconds without a frame after which the next one is sent at once. It is often alone, like a ping."""

log = logging.getLogger(__name__)


class DeviceReader:
    """Passes the frames of ``device`` to ``tracker``. Few trains carry a batch: pumps wait for its end.

    ``failed`` is called when the device cannot be read. Reading has stopped then.
    """

    def __init__(
        self,
        device: TunDevice,
        tracker: FlowTracker,
        driver: Driver,
        *,
        failed: Callable[[], None],
    ) -> None:
        self._device = device
        self._loop: asyncio.AbstractEventLoop = driver.loop
        self._readable = self._callback(device, tracker, driver, failed)

    def start(self) -> None:
        """Start reading. Call it again after the device was reopened."""
        self._loop.add_reader(self._device.fd, self._readable)

    def stop(self) -> None:
        """Stop reading. May be called repeatedly."""
        if self._device.fd >= 0:
            self._loop.remove_reader(self._device.fd)

    def _callback(
        self,
        device: TunDevice,
        tracker: FlowTracker,
        driver: Driver,
        failed: Callable[[], None],
    ) -> Callable[[], None]:
        loop = self._loop
        last = 0.0
        hold, release = driver.hold, driver.release
        read_burst, frame_arrived, flush = device.read_burst, tracker.frame_arrived, tracker.flush

        def readable() -> None:
            nonlocal last
            now = driver.clock()
            # To find out that a frame is alone takes a system call and an exception. The loop asks anyway.
            limit = 1 if now - last > SILENCE else FRAMES_PER_WAKE
            last = now
            try:
                frames = read_burst(limit)
            except HostError as error:
                log.warning("%s", error)
                self.stop()
                failed()
                return
            hold()
            try:
                for frame in frames:
                    try:
                        frame_arrived(frame, now)
                    except Exception as error:  # one frame must not stop the others of the batch
                        message = "a frame of the host failed"
                        loop.call_exception_handler({"message": message, "exception": error})
                flush(now)
            finally:
                release()

        return readable
