"""Checks for the limits of a client: how much in a month, how fast, until when."""

from __future__ import annotations

import datetime
import re

from halftunnel_vpn.config.schema import Rejected
from halftunnel_vpn.config.values import date

_QUOTA = re.compile(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B(?:/month)?")
_RATE = re.compile(r"(\d+(?:\.\d+)?) ?([kMG]?)bit(?:/s)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}

LOWEST_RATE = 8000.0
"""Bytes a second; below it a rate is a mistake."""


def quota(value: object) -> int:
    """Return the bytes of a month, of both directions: ``"100GB/month"`` or ``"500GiB"``."""
    match = _QUOTA.fullmatch(value) if isinstance(value, str) and len(value) <= 40 else None
    count = float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2]] if match is not None else 0.0
    if not 1 <= count <= 2**60:
        raise Rejected('an amount like "100GB/month"')
    return int(count)


def rate(value: object) -> float:
    """Return the bytes a second that ``"20mbit"`` means; each direction has as much."""
    match = _RATE.fullmatch(value) if isinstance(value, str) and len(value) <= 40 else None
    bits = 0.0
    if match is not None:
        bits = float(match[1]) * 1000.0 ** "_kmg".index(match[2].lower() or "_")
    if not LOWEST_RATE <= bits / 8 <= 1e12:
        raise Rejected('a rate like "20mbit", from 64kbit')
    return bits / 8


def last_day(value: object) -> str:
    """Return a date that exists, in TOML's notation."""
    text = date(value)
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        raise Rejected("a date like 2026-01-31") from None
    return text
