"""Read the log that `htvpn audit record` writes: one JSON object per line; the first describes it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from halftunnel_vpn.audit.observation import AuditRecord, Observation, Source
from halftunnel_vpn.errors import UsageError

VERSION: Final = 1
"""The version of the format that is read here."""

MAX_RECORDS: Final = 5_000_000
"""Records of one log or capture; a longer one is refused."""

_MODES: Final = frozenset(("off", "split", "strong"))


def read_log(lines: Iterable[str]) -> Observation:
    """Return what a log holds. Raises UsageError, with the line, when it is not such a log."""
    mode: str | None = None
    records: list[AuditRecord] = []
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
        except ValueError:
            # a log that is still being written, or whose writer was killed, ends in the middle of a line
            if number > 1 and not line.endswith("\n"):
                break
            raise UsageError(f"line {number} of the log is not JSON") from None
        if not isinstance(data, dict):
            raise UsageError(f"line {number} of the log is not a JSON object")
        if number == 1:
            mode = _mode(data)
        elif len(records) == MAX_RECORDS:
            raise UsageError(f"the log has more than {MAX_RECORDS} records: record for a shorter time")
        else:
            records.append(_record(data, number))
    if mode is None:
        raise UsageError("the log is empty")
    records.sort(key=lambda record: record.at)
    return Observation(Source.LOG, mode, records)


def _mode(head: dict[str, Any]) -> str:
    version = head.get("halftunnel_audit")
    if version is None:
        raise UsageError("this is neither a capture (pcap) nor a record log of htvpn audit record")
    if version != VERSION:
        raise UsageError(f"the log has version {version}; this program reads version {VERSION}")
    if head.get("mode") not in _MODES:
        raise UsageError(
            f"the log does not say in which mode it was made; there are {', '.join(sorted(_MODES))}"
        )
    return str(head["mode"])


def _record(data: dict[str, Any], number: int) -> AuditRecord:
    late, escape = data.get("late"), data.get("escape")
    right = (
        _is_number(data.get("t"))
        and data.get("dir") in ("up", "down")
        and _is_natural(data.get("leg"))
        and _is_natural(data.get("size"))
        and _is_natural(data.get("pad"))
        and data["pad"] <= data["size"]
        and (late is None or _is_number(late))
        and isinstance(data.get("slot"), bool)
        and (escape is None or isinstance(escape, str))
    )
    if not right:
        raise UsageError(f"line {number} of the log is not a record")
    return AuditRecord(
        float(data["t"]), data["dir"] == "up", str(data["leg"]), data["size"], data["pad"],
        None if late is None else float(late), data["slot"], escape,
    )  # fmt: skip


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _is_natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
