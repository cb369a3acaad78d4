"""Checks of single values. Each returns the value that the program uses, or names what is allowed."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from halftunnel_vpn.config.schema import Check, ElementProblem, Rejected, RejectedElements, accepts, shape_of

T = TypeVar("T")
E = TypeVar("E", bound=str)

MAX_ELEMENTS = 500_000
"""The most elements of one array or free table (block lists are long)."""

KEY_LENGTH = 32
"""Bytes of an X25519 key."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB|KiB|MiB|GiB)?")
_SIZE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONGESTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,14}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_FINGERPRINT = re.compile(r"(?:[0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2}")
_PEM = re.compile(r"\s*-----BEGIN CERTIFICATE-----\s.+-----END CERTIFICATE-----\s*", re.DOTALL)


def boolean(value: object) -> bool:
    """Return ``true`` or ``false``."""
    if not isinstance(value, bool):
        raise Rejected("true or false")
    return value


accepts(boolean, type="boolean")


def integer(low: int, high: int) -> Check[int]:
    """Return a check for an integer within bounds, both included."""

    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Rejected(f"a whole number from {low} to {high}")
        return value

    return accepts(check, type="integer", minimum=low, maximum=high)


def fraction(value: object) -> float:
    """Return a part of a whole, from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Rejected("a number from 0 to 1")
    return float(value)


accepts(fraction, type="number", minimum=0, maximum=1)


def one_of(*allowed: E) -> Check[E]:
    """Return a check for one of a few words."""

    def check(value: object) -> E:
        for word in allowed:
            if value == word:
                return word
        raise Rejected("one of " + ", ".join(f'"{word}"' for word in allowed))

    return accepts(check, enum=list(allowed))


def identifier(value: object) -> str:
    """Return the name of a profile or a client, which can also be a file name."""
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise Rejected("1 to 64 letters, digits, dots, dashes and underscores, the first a letter or a digit")
    return value


def interface_name(value: object) -> str:
    """Return the name of a network device."""
    if not isinstance(value, str) or not _INTERFACE.fullmatch(value):
        raise Rejected("a device name of 1 to 15 letters, digits, dots, dashes and underscores")
    return value


def congestion_control(value: object) -> str:
    """Return the kernel's name of a congestion control, or "system" for the kernel's default."""
    if not isinstance(value, str) or not _CONGESTION.fullmatch(value):
        raise Rejected('the name of a congestion control, such as "bbr" or "cubic", or "system"')
    return value


def duration(low: float, high: float) -> Check[float]:
    """Return a check for a duration in seconds: ``"250ms"``, ``"8s"``, ``"5m"``, ``"1h"``, or a number."""

    def check(value: object) -> float:
        seconds = _seconds(value)
        if seconds is None or not low <= seconds <= high:
            raise Rejected(f'a duration like "250ms", "8s", "5m" or "1h", from {low:g} s to {high:g} s')
        return float(seconds)

    text = {"type": "string", "pattern": _whole(_DURATION)}
    return accepts(check, anyOf=[{"type": "number", "minimum": low, "maximum": high}, text])


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) * _DURATION_UNITS[match[2]] if match else None


def size(low: int, high: int) -> Check[int]:
    """Return a check for a number of bytes: ``"64KiB"``, ``"16MiB"``, ``"10MB"``, or an integer."""

    def check(value: object) -> int:
        count: float | None = None
        if type(value) is int:
            count = value
        elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
            count = float(match[1]) * _SIZE_UNITS[match[2] or "B"]
        if count is None or not low <= count <= high:
            raise Rejected(f'a size like "64KiB" or "16MiB", from {low} to {high} bytes')
        return int(count)

    text = {"type": "string", "pattern": _whole(_SIZE)}
    return accepts(check, anyOf=[{"type": "integer", "minimum": low, "maximum": high}, text])


def key(value: object) -> bytes:
    """Return an X25519 key, 32 bytes, given in base64."""
    try:
        raw = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_LENGTH:
        raise Rejected("a key: 32 bytes in base64, 44 characters with the = at the end")
    return raw


def fingerprint(value: object) -> bytes:
    """Return the SHA-256 of a DER certificate, given as 64 hexadecimal digits, with or without colons."""
    if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value):
        raise Rejected("a SHA-256 fingerprint: 64 hexadecimal digits, with or without colons")
    return bytes.fromhex(value.replace(":", ""))


def certificates(value: object) -> str:
    """Return one or several PEM certificates. An empty string means none."""
    if not isinstance(value, str) or (value and not _PEM.fullmatch(value)):
        raise Rejected('PEM text in """ ... """ that begins with -----BEGIN CERTIFICATE-----')
    return value


def file_name(value: object) -> str:
    """Return the name of a file, absolute or relative to the configuration file. Empty means none."""
    if not isinstance(value, str) or len(value) > 4096 or "\0" in value or "\n" in value:
        raise Rejected("the name of a file")
    return value


def date(value: object) -> str:
    """Return a date in TOML's notation (2026-01-31) as text."""
    text_form = str(value) if isinstance(value, str | datetime.date) else ""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text_form):
        raise Rejected("a date like 2026-01-31")
    return text_form


def optional(check: Check[T]) -> Callable[[object], T | None]:
    """Return a check like ``check`` for which an empty string means None."""

    def check_or_none(value: object) -> T | None:
        return None if value == "" else check(value)

    return accepts(check_or_none, anyOf=[{"const": ""}, shape_of(check)])


def several(
    check: Check[T], *, minimum: int = 0, maximum: int = MAX_ELEMENTS, distinct: bool = True
) -> Check[tuple[T, ...]]:
    """Return a check for an array: every element passes ``check`` and, if ``distinct``, occurs once."""

    def check_all(value: object) -> tuple[T, ...]:
        if not isinstance(value, list) or not minimum <= len(value) <= maximum:
            count = f"of {minimum} to {maximum} elements" if minimum else f"of at most {maximum} elements"
            raise Rejected(f'an array {count}, written ["...", "..."]')
        good: list[T] = []
        seen: set[T] = set()
        bad: list[ElementProblem] = []
        for index, element in enumerate(value):
            position = f"[{index}]"
            try:
                checked = check(element)
            except Rejected as rejected:
                bad.append(ElementProblem(position, element, rejected.allowed))
                continue
            if distinct and checked in seen:
                bad.append(ElementProblem(position, element, "named only once"))
            seen.add(checked)
            good.append(checked)
        if bad:
            raise RejectedElements(bad)
        return tuple(good)

    return accepts(
        check_all,
        type="array", items=shape_of(check), minItems=minimum, maxItems=maximum, uniqueItems=distinct,
    )  # fmt: skip


def free_table(name: Check[str], check: Check[T]) -> Check[Mapping[str, T]]:
    """Return a check for a table whose keys, chosen by the user, pass ``name``, and its values ``check``."""

    def check_all(value: object) -> Mapping[str, T]:
        if not isinstance(value, dict) or len(value) > MAX_ELEMENTS:
            raise Rejected(f"a table of at most {MAX_ELEMENTS} entries")
        good: dict[str, T] = {}
        bad: list[ElementProblem] = []
        for word, element in value.items():
            position = f'."{word}"'
            if isinstance(element, dict):
                bad.append(
                    ElementProblem(
                        position, element, 'written with the whole name in quotes: "example.org" = ...'
                    )
                )
                continue
            try:
                checked_name = name(word)
            except Rejected as rejected:
                bad.append(ElementProblem(f" entry {len(good) + len(bad) + 1}", word, rejected.allowed))
                continue
            try:
                checked = check(element)
            except Rejected as rejected:
                bad.append(ElementProblem(position, element, rejected.allowed))
            except RejectedElements as rejected:
                bad += [
                    ElementProblem(f"{position}{inner}", found, allowed)
                    for inner, found, allowed in rejected.elements
                ]
            else:
                if checked_name in good:
                    bad.append(
                        ElementProblem(position, element, "named only once (names are compared without case)")
                    )
                good[checked_name] = checked
        if bad:
            raise RejectedElements(bad)
        return good

    return accepts(check_all, type="object", additionalProperties=shape_of(check), maxProperties=MAX_ELEMENTS)


def _whole(pattern: re.Pattern[str]) -> str:
    """Return the pattern as JSON Schema needs it, which searches where Python's fullmatch compares."""
    return f"^(?:{pattern.pattern})$"


accepts(identifier, type="string", pattern=_whole(_IDENTIFIER))
accepts(interface_name, type="string", pattern=_whole(_INTERFACE))
accepts(congestion_control, type="string", pattern=_whole(_CONGESTION))
accepts(key, type="string", pattern="^[A-Za-z0-9+/]{43}=$")
accepts(fingerprint, type="string", pattern=_whole(_FINGERPRINT))
accepts(file_name, type="string", maxLength=4096)
