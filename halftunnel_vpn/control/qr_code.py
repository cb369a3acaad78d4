"""QR codes, in a terminal and as images (segno)."""

from __future__ import annotations

import io
import os
from pathlib import Path

import segno

from halftunnel_vpn.errors import UsageError
from halftunnel_vpn.storage.atomic_file import create_file


def for_terminal(text: str) -> str:
    """Return the code in half blocks, dark on light, whatever the colours of the terminal are."""
    out = io.StringIO()
    rows = [[*row] for row in segno.make(text, error="l", micro=False).matrix_iter(border=4)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        out.write("\x1b[38;5;16m\x1b[48;5;231m")
        out.write("".join(_BLOCKS[bool(top), bool(bottom)] for top, bottom in zip(upper, lower, strict=True)))
        out.write("\x1b[0m\n")
    return out.getvalue()


_BLOCKS = {(False, False): " ", (True, False): "\u2580", (False, True): "\u2584", (True, True): "\u2588"}


def for_page(text: str) -> str:
    """Return the code as an SVG document without a size of its own, dark on light."""
    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        out, kind="svg", xmldecl=False, border=4, light="#fff", dark="#000", omitsize=True
    )
    return out.getvalue().decode()


def write_image(text: str, path: str) -> None:
    """Write a new PNG or SVG file of mode 0600. Raises UsageError for another name."""
    kind = os.path.splitext(path)[1].lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise UsageError(f"--output {path}: must end in .png or .svg")
    out = io.BytesIO()
    segno.make(text, error="m", micro=False).save(out, kind=kind, scale=6, border=4)
    try:
        create_file(Path(path), out.getvalue())
    except FileExistsError:
        raise UsageError(f"{path} exists already and is not replaced; name another file") from None
