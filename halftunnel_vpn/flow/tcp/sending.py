"""The send side: it sends within the host's window and repeats what was lost. Numbers are unwrapped."""

from __future__ import annotations

from math import inf

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.tcp.congestion import CongestionControl
from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig
from halftunnel_vpn.flow.tcp.host_window import NEVER, HostWindow
from halftunnel_vpn.flow.tcp.lazy_timer import Deadline
from halftunnel_vpn.flow.tcp.outgoing import Outgoing
from halftunnel_vpn.flow.tcp.recovery import NO_LOSS, LossRecovery
from halftunnel_vpn.flow.tcp.round_trip import RoundTrip
from halftunnel_vpn.flow.tcp.send_queue import SendQueue
from halftunnel_vpn.inet.tcp import ACK, FIN, PSH


class Sender:
    """``una`` and ``nxt`` are SND.UNA and SND.NXT. ``window`` is the window of the host.

    ``queue`` may be filled before :meth:`start`, but nothing is sent until then. From :meth:`start` until
    :meth:`release` the sender sets the ``deadline``. When the deadline has passed, the owner must call
    :meth:`deadline_passed`, unless :meth:`is_given_up`.
    """

    __slots__ = (
        "_config",
        "_congestion",
        "_counters",
        "_deadline",
        "_fin_at",
        "_mss",
        "_out",
        "_probe_interval",
        "_probed",
        "_recovery",
        "_sack",
        "_sent_at",
        "_silent",
        "_timeouts",
        "_waiting_since",
        "fin_acknowledged",
        "fin_queued",
        "nxt",
        "queue",
        "round_trip",
        "una",
        "window",
    )

    def __init__(
        self,
        next_sequence: int,
        out: Outgoing,
        *,
        config: TcpEndpointConfig,
        congestion: CongestionControl,
        deadline: Deadline,
        counters: Counters,
    ) -> None:
        self.una = next_sequence
        self.nxt = next_sequence
        self.window = HostWindow(next_sequence)
        self.queue = SendQueue()
        self.fin_queued = False
        self.fin_acknowledged = False
        self.round_trip = RoundTrip(config)
        self._out = out
        self._config = config
        self._congestion = congestion
        self._counters = counters
        self._recovery = NO_LOSS
        self._deadline = deadline
        self._fin_at = NEVER
        self._mss = 0
        self._sack = False
        self._sent_at = 0.0
        self._waiting_since = 0.0
        self._timeouts = 0
        self._silent = False
        self._probe_interval = 0.0
        self._probed = False

    def start(
        self, mss: int, frame_limit: int, window: int, sequence: int, now: float, *, sack: bool
    ) -> None:
        """Send the waiting data: the handshake is done.

        ``mss`` is the host's segment size. ``frame_limit`` is the most bytes of text in a frame. ``window``
        is the host's window in bytes, from its segment with number ``sequence``.
        """
        self._mss = mss
        self.queue.frame_limit = frame_limit
        self._congestion.started(mss)
        self._sack = sack
        self.window.start(self.una + window, window, sequence)
        self._sent_at = self._waiting_since = now
        self.transmit(now)

    def push(self, data: memoryview, now: float) -> None:
        """Send ``data``, now if the windows allow it."""
        queue = self.queue
        if not queue.waiting:
            in_flight = self.nxt - self.una
            if not in_flight:
                self._waiting_since = now
                if now - self._sent_at > self.round_trip.timeout:
                    self._congestion.idle()
            length = len(data)
            if (
                0 < length <= queue.frame_limit
                and length <= self.window.edge - self.nxt
                and in_flight + length <= self._congestion.window
                and not self._silent
                and not self._recovery.busy
            ):
                queue.append_in_flight(data)
                self._send_new([data], length, now)
                return
        queue.append(data)
        self.transmit(now)

    def finish(self, now: float) -> None:
        """Send a FIN behind all data given so far."""
        if self.nxt == self.una and not self.queue.waiting:
            self._waiting_since = now
        self.fin_queued = True
        self.transmit(now)

    def release(self) -> None:
        """Drop everything. Nothing may be sent afterwards."""
        self._deadline.cancel()
        self.queue.clear()

    # --- what the host acknowledges --------------------------------------------------------------

    def acknowledged(
        self,
        advance: int,
        window: int,
        blocks: tuple[tuple[int, int], ...],
        sequence: int,
        bare: bool,
        now: float,
    ) -> int:
        """Take an acceptable acknowledgement of ``advance`` new bytes; return how many of them were data.

        ``window`` is in bytes. ``blocks`` are the SACK blocks as received. ``sequence`` is the number of the
        segment. ``bare`` is True when the segment has no text and no FIN.
        """
        una = self.una + advance
        nxt = self.nxt
        recovery = self._recovery
        self._silent = False
        freed = advance
        if advance:
            if self._fin_at != NEVER and una > self._fin_at:
                self.fin_acknowledged = True
                freed -= 1
            self.queue.release(freed)
            in_flight = nxt - self.una
            self.una = una
            self._waiting_since = now
            round_trip = self.round_trip
            if self._timeouts:
                self._timeouts = 0
                round_trip.answered(now)
            if una >= round_trip.watched:
                round_trip.arrived(now)
            self._deadline.set(inf if una == nxt else now + round_trip.timeout)
            if not recovery.active or recovery.by_timeout:
                self._congestion.acknowledged(advance, in_flight)
        elif una == nxt or self.window.edge <= una:
            self._waiting_since = now  # an answer to a probe: the window is closed, but the host answers
        if recovery.busy or blocks or not advance:
            repeated = bare and not advance and window == self.window.size and una < nxt
            if recovery is not NO_LOSS or repeated or blocks:
                recovery = self._loss_recovery()
                if recovery.acknowledged(una, nxt, advanced=advance > 0, repeated=repeated, blocks=blocks):
                    self._begin_repair(now)
        self.window.update(una + window, window, sequence, advanced=advance > 0)
        if self.queue.waiting or recovery.busy or (self.fin_queued and self._fin_at == NEVER):
            self.transmit(now)
        return freed

    def adopt_probe(self) -> bool:
        """Return whether the host has acknowledged the byte of a window probe; count it as sent then."""
        if not self._probed:
            return False
        self.queue.launch(1)
        self.nxt += 1
        self._probed = False
        self._probe_interval = 0.0
        return True

    # --- what goes out ---------------------------------------------------------------------------

    def transmit(self, now: float) -> None:
        """Send what the windows allow: lost data first, then new data, then the FIN."""
        if self._silent:
            return  # only the timer sends until the host answers again
        if self._recovery.busy:
            budget = self._repair(now)
        else:
            budget = self._congestion.window - (self.nxt - self.una)
        queue = self.queue
        while queue.waiting:
            size = queue.waiting
            allowance = self.window.edge - self.nxt
            if budget < allowance:
                allowance = budget
            if size > allowance:
                size = self.window.worth_sending(allowance, self._mss)
                if size <= 0:
                    break
            parts, size = queue.launch(size)
            self._send_new(parts, size, now)
            budget -= size
        if queue.waiting:
            if self.nxt == self.una and not self._probe_interval:
                self._probe_interval = self.round_trip.timeout
                self._deadline.set(now + self._probe_interval)
        elif self.fin_queued and self._fin_at == NEVER:
            self._send_fin(now)

    def _send_new(self, parts: list[memoryview], size: int, now: float) -> None:
        """Send ``parts`` in one frame: ``size`` bytes of new data that the queue has launched."""
        sequence = self.nxt
        self.nxt = end = sequence + size
        flags = ACK
        if not self.queue.waiting:
            flags = ACK | PSH
            if self.fin_queued:
                flags = FIN | ACK | PSH
                self._fin_at = end
                self.nxt = end + 1
        self._sent_at = now
        self._probe_interval = 0.0
        self._probed = False
        self._keep_time(sequence, now)
        self._out.data(sequence, flags, parts, size)

    def _send_fin(self, now: float) -> None:
        """Send a bare FIN. A closed window accepts it, and it also serves as a probe."""
        self._fin_at = sequence = self.nxt
        self.nxt += 1
        self._keep_time(sequence, now)
        self._out.data(sequence, FIN | ACK, (), 0)

    def _keep_time(self, sequence: int, now: float) -> None:
        """Measure one round trip at a time. Keep the timer running while data is in flight."""
        if now >= self.round_trip.rests_until and not self._recovery.active:
            self.round_trip.watch(self.nxt, now)
        if sequence == self.una:
            self._deadline.set(now + self.round_trip.timeout)

    # --- what goes out again ---------------------------------------------------------------------

    def _loss_recovery(self) -> LossRecovery:
        """Return the loss recovery. It is created when first needed: most connections lose nothing."""
        if self._recovery is NO_LOSS:
            burst = min(self._congestion.burst, self.queue.frame_limit)
            self._recovery = LossRecovery(self._mss, burst, sack=self._sack)
        return self._recovery

    def _begin_repair(self, now: float) -> None:
        """Begin a fast retransmit: send the first lost data, whatever the window (RFC 6675, 5, step 4.3)."""
        self._counters.count("tcp-fast-recoveries")
        self._congestion.lost(self.nxt - self.una)
        hole = self._recovery.next_hole(self.una)
        if hole is not None:
            self._send_again(hole[0], min(hole[1] - hole[0], self._recovery.burst), now)

    def _repair(self, now: float) -> int:
        """Send lost data again, within the congestion window; return the rest of the window."""
        recovery = self._recovery
        while True:
            budget = self._congestion.window - recovery.pipe(self.una, self.nxt)
            hole = recovery.next_hole(self.una)
            if hole is None:
                return budget
            start, end = hole
            if end - start > budget:
                end = start + budget - budget % self._mss
                if end <= start:
                    return 0
            self._send_again(start, end - start, now)

    def _send_again(self, start: int, size: int, now: float) -> None:
        """Send again up to ``size`` outstanding bytes from ``start``, in one frame."""
        data_end = self.nxt if self._fin_at == NEVER else self._fin_at
        parts, length = self.queue.again(start - self.una, min(size, data_end - start))
        end = start + length
        flags = ACK | PSH
        if end == self._fin_at and size > length:
            flags = FIN | ACK | PSH
            end += 1
        self._recovery.sent_again(end)
        self.round_trip.forget()
        self._counters.count("tcp-retransmitted-frames")
        if start == self.una:
            self._deadline.set(now + self.round_trip.timeout)
        self._out.data(start, flags, parts, length)

    # --- the timer -------------------------------------------------------------------------------

    def is_given_up(self, now: float) -> bool:
        """Return whether the host has not answered for the user timeout. The connection must end then."""
        return now - self._waiting_since >= self._config.user_timeout

    def deadline_passed(self, now: float) -> None:
        """Send outstanding data again, or probe the window."""
        if self.nxt != self.una:
            self._timed_out(now)
        else:
            self._probe(now)

    def _timed_out(self, now: float) -> None:
        """Send the first outstanding frame again and wait for an answer (RFC 6298, 5.4 to 5.6)."""
        self._counters.count("tcp-timeouts")
        in_flight = self.nxt - self.una
        self._congestion.timed_out(in_flight, self._timeouts > 0)
        self._timeouts += 1
        self._silent = True
        self._loss_recovery().timed_out(self.una, self.nxt)
        self.round_trip.back_off(now)
        self._send_again(self.una, min(in_flight, self._recovery.burst), now)
        self._wait(now, self.round_trip.timeout)

    def _probe(self, now: float) -> None:
        """Send although the window is closed, or too small to be worth it (RFC 9293, 3.8.6.1)."""
        allowance = min(self.window.edge - self.nxt, self.queue.waiting)
        if allowance > 0:
            parts, size = self.queue.launch(allowance)
            self._send_new(parts, size, now)
            return
        self._counters.count("tcp-window-probes")
        self._out.data(self.nxt, ACK, [self.queue.peek(1)], 1)
        self._probed = True
        self._probe_interval = min(2 * self._probe_interval, self._config.rto_max)
        self._wait(now, self._probe_interval)

    def _wait(self, now: float, timeout: float) -> None:
        """Set the deadline to ``timeout`` from now, but not after the user timeout."""
        self._deadline.set(min(now + timeout, self._waiting_since + self._config.user_timeout))
