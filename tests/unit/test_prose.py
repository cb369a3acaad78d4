"""The language of the package and its documents: phrases that a reader has to read twice stay out."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]

PHRASES = {
    r"\bOr\s+[A-Z]\w*Error\b": "Raises ...Error.",
    r"\banew\b": "again",
    r"\bfor\s+ever\b": "forever",
    r"\bfor\s+so\s+long\b": "for `seconds`",
    r"\bin\s+good\s+order\b": "cleanly",
    r"\b[Ww]hoever\b": "the caller, an observer, another program ...",
    r"\bbut\s+for\b": "except",
    r"\bcannot\s+be\s+meant\b": "invalid",
    r"\bis\s+no\s+UTF-8\b": "is not UTF-8",
    r"\bbetween\s+two\s+looks\b": "poll interval",
    r"\b(?:is|are)\s+told\b": "is called with, receives",
    r"\bhears\b": "receives",
    r"\bsay\s+`htvpn": "run `htvpn",
}
"""Phrases that no text here should have, and what to write instead."""


def texts() -> list[Path]:
    """Return the sources, the examples of configurations and the documents."""
    found = [TOP / "README.md", *(TOP / "configs").glob("*.toml"), *(TOP / "docs").glob("*.md")]
    found += [*(TOP / "systemd").iterdir(), *(TOP / "halftunnel_vpn").rglob("*.py")]
    return [path for path in found if path.is_file()]


def findings(text: str) -> list[str]:
    """Return each phrase in ``text`` with its line and what to write instead."""
    return [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; write {instead!r}"
        for pattern, instead in PHRASES.items()
        for match in re.finditer(pattern, text)
    ]


def test_no_text_has_a_phrase_of_the_old_dialect() -> None:
    found = {str(path.relative_to(TOP)): findings(path.read_text()) for path in texts()}
    assert not {path: lines for path, lines in found.items() if lines}


def test_a_phrase_is_found_with_its_line() -> None:
    assert findings("one\nIt begins anew.\n") == ["line 2: 'anew'; write 'again'"]
