"""Score an observation, path by path and merged, and judge whether the mode kept its promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from halftunnel_vpn.audit import measures
from halftunnel_vpn.audit.observation import AuditRecord, Observation, Source, activities

PROMISED: Final = {"off": "", "split": "A", "strong": "AB"}
"""The paths on which records leave by a clock, by mode."""

MAX_AUC: Final = 0.55
"""How well lateness may distinguish padding from data."""

CERTAINTY: Final = 1.96
"""Standard errors by which it must be more: otherwise it may be chance."""

MAX_CAPTURED_OFF_SIZE: Final = 0.02
"""Share of records of another size on a clocked path of a capture: handshakes, keepalives, escapes."""


@dataclass(slots=True)
class PathScore:
    """What one path shows; ``all`` is both together. None: unknown from this source."""

    path: str
    records: int
    bytes_up: int
    bytes_down: int
    size_entropy: float
    """Bits a record, of the sizes in the path's own direction."""
    activities: int
    bits_per_activity: float
    four_bursts: int
    """Places that look like a TLS handshake in a tunnel."""
    overhead: float | None = None
    """Bytes of padding for each byte that is none."""
    cell: int | None = None
    """The size of the clock's records."""
    off_slot: int | None = None
    """Records outside the clock without a declared reason."""
    off_size: int | None = None
    """Records of another size than the clock's, without a declared reason."""
    escapes: dict[str, int] = field(default_factory=dict)
    """Records outside the clock, by the declared reason."""
    lateness_auc: float | None = None
    """How well lateness distinguishes padding from data: 0.5 not at all, 1 always."""
    lateness_error: float | None = None
    """Its standard error."""


@dataclass(slots=True)
class AuditVerdict:
    """The scores of an observation, and in which ways the mode's promise is broken."""

    source: str
    mode: str | None
    seconds: float
    whole_records: bool
    paths: list[PathScore]
    correlation: float
    """Of the bytes on A and B over time; 0 to 1."""
    echo: float
    """How far small upstream records follow the download; 0 to 1."""
    broken: list[str]
    unjudged: list[str]
    """What is promised and could not be judged from this source."""

    def as_data(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        return asdict(self)


def judge(observation: Observation) -> AuditVerdict:
    """Score an observation."""
    records = observation.records
    length = records[-1].at if records else 0.0
    clocked = PROMISED.get(observation.mode or "off", "")
    paths = [_score(observation, path, clocked) for path in ("A", "B", "all")]
    up, down = observation.sent("A"), observation.sent("B")
    bins = [measures.bins(each, length) for each in (down, up)]
    broken: list[str] = []
    unjudged: list[str] = []
    for score in paths:
        if score.path in clocked:
            _check(observation, score, broken, unjudged)
    return AuditVerdict(
        source=observation.source.value,
        mode=observation.mode,
        seconds=length,
        whole_records=observation.whole_records,
        paths=paths,
        correlation=measures.correlation(bins[0], bins[1]),
        echo=measures.echo(up, down, length),
        broken=broken,
        unjudged=unjudged,
    )


def _score(observation: Observation, path: str, clocked: str) -> PathScore:
    records = observation.path(path)
    own = observation.sent(path) if path in ("A", "B") else records
    known = activities(records)
    by_clock = path in clocked if path != "all" else clocked == "AB"
    score = PathScore(
        path=path,
        records=len(records),
        bytes_up=sum(record.size for record in records if record.up),
        bytes_down=sum(record.size for record in records if not record.up),
        size_entropy=measures.entropy([record.size for record in own]),
        activities=len(known),
        bits_per_activity=measures.bits(known, clocked=by_clock),
        four_bursts=measures.four_bursts(records),
    )
    if observation.source is Source.LOG:
        padding = sum(record.pad or 0 for record in records)
        real = score.bytes_up + score.bytes_down - padding
        score.overhead = padding / real if real else None
        score.escapes = dict(Counter(record.escape for record in records if record.escape is not None))
    if path in clocked:
        _score_clock(observation, score, own)
    return score


def _score_clock(observation: Observation, score: PathScore, own: list[AuditRecord]) -> None:
    in_clock = [record for record in own if record.escape is None]
    score.cell = measures.cell_size(in_clock)
    score.off_size = sum(record.size != score.cell for record in in_clock)
    if observation.source is Source.LOG:
        score.off_slot = sum(not record.slot for record in in_clock)
        # the client knows when its own slots were; of the exit's it knows when their records came
        timed = own if score.path == "A" else measures.arrival_lateness(own)
        found = measures.lateness(timed)
        if found is not None:
            score.lateness_auc, score.lateness_error = found


def _check(observation: Observation, score: PathScore, broken: list[str], unjudged: list[str]) -> None:
    where = f"path {score.path}"
    sent = len(observation.sent(score.path))
    if not sent:
        unjudged.append(f"{where}: nothing was sent")
        return
    if observation.source is Source.CAPTURE:
        unjudged.append(f"{where}: a capture does not show slots and padding; use htvpn audit record")
        if not observation.whole_records:
            unjudged.append(f"{where}: frames are cut, so records are guessed; capture whole ones (-s 0)")
        elif (score.off_size or 0) > MAX_CAPTURED_OFF_SIZE * sent:
            broken.append(f"{where}: {score.off_size} of {sent} records have another size than the clock's")
        return
    if score.off_slot:
        broken.append(f"{where}: {score.off_slot} of {sent} records left outside the clock, undeclared")
    if score.off_size:
        broken.append(f"{where}: {score.off_size} of {sent} records have another size, undeclared")
    if score.lateness_auc is None:
        unjudged.append(f"{where}: too few records whose lateness is known")
    elif score.lateness_auc - CERTAINTY * (score.lateness_error or 0.0) > MAX_AUC:
        broken.append(f"{where}: lateness distinguishes padding from data (AUC {score.lateness_auc:.3f})")
