"""The verdict for people, as text."""

from __future__ import annotations

from collections.abc import Iterator

from halftunnel_vpn.audit.verdict import AuditVerdict, PathScore

_TITLES = {"A": "path A (upstream)", "B": "path B (downstream)", "all": "all paths together"}

_MEANING = {
    "off": "off: nothing is promised. An observer of one path recognises pages.",
    "split": "split: path A shows when you are active, and no sizes. Path B and both together show all.",
    "strong": "strong: both paths show when you are active and one of few lengths.",
}


def render(verdict: AuditVerdict) -> str:
    """Return the report, lines of text with a closing newline."""
    return "\n".join(_lines(verdict)) + "\n"


def _lines(verdict: AuditVerdict) -> Iterator[str]:
    kind = "record log" if verdict.source == "log" else "capture"
    mode = verdict.mode or "unknown (name it with --mode to have its promise checked)"
    yield f"{kind} of {verdict.seconds:.0f} s, mode {mode}"
    if not verdict.whole_records:
        yield "frames are cut: what was sent together counts as one record"
    for score in verdict.paths:
        yield ""
        yield from _path(score)
    yield ""
    yield f"A follows B                {verdict.correlation:.2f}   (bytes over time; 1: one shows the other)"
    yield f"acknowledgement echo       {verdict.echo:.2f}   (small upstream records after a download)"
    yield ""
    if verdict.mode is not None:
        yield _MEANING[verdict.mode]
    for line in verdict.unjudged:
        yield f"not judged: {line}"
    for line in verdict.broken:
        yield f"BROKEN: {line}"
    if verdict.mode not in (None, "off") and not verdict.broken:
        yield "the judged part of the promise is kept"


def _path(score: PathScore) -> Iterator[str]:
    volume = f"{score.bytes_up:,} B up, {score.bytes_down:,} B down"
    yield f"{_TITLES[score.path]}: {score.records} records, {volume}"
    yield f"    entropy of sizes       {score.size_entropy:.1f} bits a record"
    yield f"    activities             {score.activities}, differing by {score.bits_per_activity:.1f} bits"
    yield f"    four-burst handshakes  {score.four_bursts}"
    if score.overhead is not None:
        yield f"    padding                {score.overhead:.1%} of what is none"
    if score.cell is not None:
        slots = "" if score.off_slot is None else f", off slot {score.off_slot}"
        yield f"    clock                  {score.cell} B a record; off size {score.off_size}{slots}"
    if score.escapes:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(score.escapes.items()))
        yield f"    declared escapes       {reasons}"
    if score.lateness_auc is not None:
        error = 1.96 * (score.lateness_error or 0.0)
        yield f"    lateness of padding    AUC {score.lateness_auc:.3f} +- {error:.3f} (0.5: not at all)"
