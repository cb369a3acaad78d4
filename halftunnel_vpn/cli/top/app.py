"""The screen of `htvpn top`. Only this module imports textual."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, RichLog, Static

from halftunnel_vpn.cli.top import async_requests, screen_text
from halftunnel_vpn.cli.top.feed import Feed
from halftunnel_vpn.cli.top.rates import SORTS, FlowRates, StatusRates
from halftunnel_vpn.errors import HostError

MAX_LOG_LINES: Final = 500
"""Lines of the log that can be scrolled back to."""

COMMAND_WAIT: Final = 60.0
"""Seconds that a command may take until it has begun."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


class Notice(ModalScreen[bool]):
    """A text over the screen. ``asks``: y confirms; any other key does not."""

    CSS = """
    Notice { align: center middle; }
    #notice { width: auto; max-width: 95%; height: auto; max-height: 95%; border: ascii; padding: 0 1; }
    """

    def __init__(self, text: str, *, asks: bool) -> None:
        super().__init__()
        self._text = text + ("\n\ny  yes    any other key  no" if asks else "\n\nany key closes this")

    def compose(self) -> ComposeResult:
        """Show the text."""
        yield Static(self._text, id="notice", markup=False)

    def on_key(self, event: Any) -> None:
        """Close with the answer."""
        event.stop()
        self.dismiss(event.key == "y")


class TopApp(App[int]):
    """Shows the client behind the control socket ``path`` in the terminal's colours. Implements Viewer."""

    TITLE = "htvpn top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #header { height: auto; }
    #paths { height: auto; max-height: 35%; border-top: ascii $foreground; }
    #programs { height: 1fr; min-height: 3; border-top: ascii $foreground; }
    #log { height: 1fr; min-height: 2; border-top: ascii $foreground; scrollbar-size: 1 1; }
    #paths, #programs { scrollbar-size: 1 1; }
    #message { height: auto; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("p", "pause", "Pause"),
        Binding("s", "sort", "Sort"),
        Binding("r", "reconnect", "Reconnect"),
        Binding("u", "up", "Up"),
        Binding("d", "down", "Down"),
        Binding("h,question_mark", "help", "Help"),
    ]

    def __init__(self, path: str) -> None:
        super().__init__(ansi_color=True)
        self._path = path
        self._feed = Feed(path, self)
        self._status: Mapping[str, Any] | None = None
        self._rates = StatusRates()
        self._flows = FlowRates()
        self._order = 0
        # Why the status is missing; None if it is known.
        self._lost: str | None = "asking the client"
        self._log_is_absent = False
        # The log, to be wrapped again when the width changes.
        self._lines: deque[str] = deque(maxlen=MAX_LOG_LINES)
        # Running requests and the feed: asyncio keeps no reference of its own.
        self._tasks: set[asyncio.Task[None]] = set()

    def compose(self) -> ComposeResult:
        """Lay out the parts."""
        yield Static(id="header", markup=False)
        with VerticalScroll(id="paths"):
            yield Static(id="paths-text", markup=False)
        with VerticalScroll(id="programs"):
            yield Static(id="programs-text", markup=False)
        yield RichLog(id="log", max_lines=MAX_LOG_LINES, wrap=True, min_width=20)
        yield Static(id="message", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to ask. A signal that ends this process gives the terminal back first."""
        for theme in ("ansi-dark", "textual-ansi"):
            if theme in self.available_themes:
                self.theme = theme
                break
        self.query_one("#log", RichLog).can_focus = True
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.exit, 0)
        self._start(self._feed.run())

    def on_unmount(self) -> None:
        """Stop asking."""
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        self._stop_tasks()

    def exit(self, *words: Any, **named: Any) -> None:
        """End. Stop asking first: an answer that arrives later finds no screen to be shown on."""
        self._stop_tasks()
        super().exit(*words, **named)

    def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    def on_resize(self) -> None:
        """Draw for the new width."""
        self._draw()
        shown = self.query_one("#log", RichLog)
        shown.clear()
        for text in self._lines:
            shown.write(text)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._handle_exception(task.exception())  # type: ignore[arg-type]

    # --- what arrives (Viewer) ---------------------------------------------------------------------

    def status_arrived(self, status: Mapping[str, Any]) -> None:
        """Show a status."""
        self._status, self._lost = status, None
        self._rates.add(status, time.monotonic())
        self._draw()

    def flows_arrived(self, listed: Mapping[str, Any]) -> None:
        """Show the open flows."""
        self._flows.add(listed, time.monotonic())
        self._draw()

    def lines_arrived(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Show further lines of the log. Who has scrolled up stays there."""
        self._log_is_absent = False
        shown = self.query_one("#log", RichLog)
        for text in screen_text.log_lines(lines[-MAX_LOG_LINES:]):
            self._lines.append(text)
            shown.write(text, scroll_end=shown.scroll_offset.y >= shown.max_scroll_y)

    def client_lost(self, sentence: str) -> None:
        """Show that the client does not answer."""
        self._lost, self._status = sentence, None
        self._rates.forget()
        self._flows.forget()
        self._draw()

    def no_log(self, sentence: str) -> None:
        """Report once that this client has no log."""
        if not self._log_is_absent:
            self._log_is_absent = True
            self._lines.append(sentence)
            self.query_one("#log", RichLog).write(sentence)

    # --- the screen --------------------------------------------------------------------------------

    def _draw(self) -> None:
        width = max(20, self.size.width)
        paused = self._feed.is_paused
        inner = width - 1  # beside a scrollbar
        if self._status is None:
            state = "PAUSED" if paused else "NO CLIENT"
            self._put("#header", [f"{state}: {self._lost}; waiting for one ('htvpn up' starts it)"])
            self._put("#paths-text", [])
            self._put("#programs-text", [])
            return
        self._put("#header", screen_text.header(self._status, self._rates, width, paused=paused))
        self._put("#paths-text", screen_text.paths(self._status, self._rates, inner))
        order = SORTS[self._order]
        listed = self._flows.in_order(order)
        self._put("#programs-text", screen_text.programs(listed, self._flows.left_out, inner, order=order))

    def _put(self, place: str, lines: Sequence[str]) -> None:
        """Change a text only where it differs: an idle screen costs nothing."""
        widget = self.query_one(place, Static)
        text = "\n".join(lines)
        if getattr(widget, "shown_text", None) != text:
            same_height = getattr(widget, "shown_text", "").count("\n") == text.count("\n")
            widget.shown_text = text  # type: ignore[attr-defined]
            widget.update(text) if not same_height else widget.update(text, layout=False)

    def _say(self, text: str) -> None:
        message = self.query_one("#message", Static)
        message.update(screen_text.fitted(text, max(20, self.size.width)))
        message.display = bool(text)

    # --- keys --------------------------------------------------------------------------------------

    def action_pause(self) -> None:
        """Stop asking, or go on."""
        if self._feed.is_paused:
            self._rates.forget()
            self._feed.resume()
        else:
            self._feed.pause()
        self._draw()

    def action_sort(self) -> None:
        """Sort the programs by the next order."""
        self._order = (self._order + 1) % len(SORTS)
        self._draw()

    def action_reconnect(self) -> None:
        """Reopen every connection."""
        self._start(self._command("/v1/reconnect", "reopening every connection"))

    def action_up(self) -> None:
        """Ask, then connect through the active profile."""
        question = "Connect this host through the active profile?"
        self.push_screen(Notice(question, asks=True), partial(self._answered, "/v1/up", "connecting"))

    def action_down(self) -> None:
        """Ask, then disconnect."""
        question = "Disconnect this host? Its flows end."
        self.push_screen(Notice(question, asks=True), partial(self._answered, "/v1/down", "disconnecting"))

    def action_help(self) -> None:
        """Explain keys and columns."""
        self.push_screen(Notice(screen_text.HELP, asks=False))

    def _answered(self, target: str, meaning: str, confirmed: bool | None) -> None:
        if confirmed:
            self._start(self._command(target, meaning))

    async def _command(self, target: str, meaning: str) -> None:
        try:
            await async_requests.ask(self._path, "POST", target, wait=COMMAND_WAIT)
        except HostError as error:
            self._say(f"! {error}")
        else:
            self._say(meaning)
