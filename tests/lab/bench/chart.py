"""A chart of the headline rows: bars by peer, one panel a row, as SVG written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from lab.bench.results import Results
from lab.bench.rows import Row
from lab.bench.summary import Summary, significant

HEADLINES: Final = (
    "tcp-1-up", "tcp-1-down", "tcp-8-up", "tcp-8-down",
    "udp-1200-up", "udp-1200-down", "http", "connections",
    "ping-idle", "ping-up", "ping-down", "start",
    "cpu-up-client", "cpu-down-client", "road-1-1-down-cubic", "road-1-8-down-cubic",
)  # fmt: skip
"""Rows that become panels, as far as they were measured."""

LEFT_OUT: Final = ("direct",)
"""Peers without a bar: what the machine does without a tunnel would make all others short."""

COLUMNS: Final = 2
PANEL_WIDTH: Final = 440
LABEL_WIDTH: Final = 120
VALUE_WIDTH: Final = 70
BAR_HEIGHT: Final = 14
BAR_GAP: Final = 6
MARGIN: Final = 20
TITLE_HEIGHT: Final = 40
FOOT_HEIGHT: Final = 30
HEAD_HEIGHT: Final = 40

_OURS_COLOUR: Final = "#0b7285"
_COLOUR: Final = "#adb5bd"
_TEXT: Final = "#212529"
_FAINT: Final = "#6c757d"
_STYLE: Final = (
    f"text {{ font-family: system-ui, 'DejaVu Sans', Arial, sans-serif; font-size: 11px; fill: {_TEXT} }}"
    " .head { font-size: 16px; font-weight: 600 } .title { font-size: 12px; font-weight: 600 }"
    f" .faint {{ fill: {_FAINT} }}"
)


def draw(results: Results) -> str:
    """The chart as one SVG document."""
    peers = [peer for peer in results.peers if peer.id not in LEFT_OUT]
    titles = {peer.id: peer.title for peer in peers}
    panels = []
    for row in results.rows():
        found = {peer: each for peer, each in results.summaries(row.id).items() if peer in titles}
        if row.id in HEADLINES and found:
            panels.append((row, found))
    panels.sort(key=lambda panel: HEADLINES.index(panel[0].id))
    lines = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    width = MARGIN + COLUMNS * (PANEL_WIDTH + MARGIN)
    height = HEAD_HEIGHT + sum(map(_height, lines)) + FOOT_HEIGHT
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img" aria-label="Half-Tunnel beside other VPNs">',
        f"<style>{escape(_STYLE)}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(MARGIN, 26, "Half-Tunnel beside other VPNs", "head"),
    ]
    y = HEAD_HEIGHT
    for line in lines:
        for column, (row, found) in enumerate(line):
            x = MARGIN + column * (PANEL_WIDTH + MARGIN)
            out.append(f'<g transform="translate({x} {y})">')
            out += _panel(row, found, titles)
            out.append("</g>")
        y += _height(line)
    out.append(_text(MARGIN, height - 12, _foot(results), "faint"))
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _height(line: list[tuple[Row, dict[str, Summary]]]) -> int:
    """Of panels side by side."""
    bars = max(len(found) for _, found in line)
    return TITLE_HEIGHT + bars * (BAR_HEIGHT + BAR_GAP) + MARGIN


def _panel(row: Row, found: dict[str, Summary], titles: dict[str, str]) -> Iterator[str]:
    longest = max(summary.high for summary in found.values()) or 1.0
    room = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
    yield _text(0, 16, row.title, "title")
    yield _text(0, 30, f"{row.unit}, {row.better} is better", "faint")
    for place, (peer, summary) in enumerate(found.items()):
        y = TITLE_HEIGHT + place * (BAR_HEIGHT + BAR_GAP)
        middle = y + BAR_HEIGHT / 2
        length = summary.median / longest * room
        colour = _OURS_COLOUR if peer.startswith("ours") else _COLOUR
        yield _text(0, y + 11, titles[peer])
        yield _rectangle(LABEL_WIDTH, y, length, BAR_HEIGHT, colour)
        low, high = (LABEL_WIDTH + value / longest * room for value in (summary.low, summary.high))
        if summary.rounds > 1:
            yield f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{_TEXT}" stroke-width="1"/>'
        yield _text(max(high, LABEL_WIDTH) + 6, y + 11, significant(summary.median, row.digits))


def _foot(results: Results) -> str:
    shown = [*results.machine.values(), *results.settings.values()]
    return f"Medians; lines: worst and best round. {' · '.join(shown[:3])}"


def _text(x: float, y: float, text: str, style: str = "") -> str:
    chosen = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{chosen}>{escape(text)}</text>'


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'
