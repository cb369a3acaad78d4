"""The tables, in Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.bench.results import Results
from lab.bench.rows import Row
from lab.bench.summary import Summary, beats, best, ratio, significant
from lab.bench.targets import COMPILED, DIRECT, DRAWN, NO_PEERS, OURS, SHAPED, verdicts

ABSENT = "-"
"""Where nothing was measured."""


def render(results: Results) -> str:
    """The whole report: conditions, table, ratios, goals, failures."""
    parts = [_conditions(results), _table(results)]
    comparison = list(_comparison(results))
    if comparison:
        head = ["row", "best peer", "ours / best peer", "ahead", "ours / direct"]
        if _has_compiled(results):
            head += ["compiled / best peer", "compiled / direct"]
        title = "Ours beside the best peer of each row, and beside no tunnel:\n\n"
        parts.append(title + markdown([head, *comparison], right=(2, 4, 5, 6)))
    shaped = list(_shaped(results))
    if shaped:
        head = ["row", *(f"{peer.removeprefix('ours-')} / off" for peer in SHAPED)]
        title = "Ours with shaping, beside ours without:\n\n"
        parts.append(title + markdown([head, *shaped], right=range(1, len(head))))
    drawn = list(_drawn(results))
    if drawn:
        title = "Ours in split with three legs drawn by lot, beside three legs in turns without shaping:\n\n"
        parts.append(title + markdown([["row", "lots / turns"], *drawn], right=(1,)))
    judged = verdicts(results)
    if any(verdict.reached is not None for verdict in judged):
        words = {True: "yes", False: "NO", None: ABSENT}
        body = [[verdict.title, verdict.wanted, verdict.found, words[verdict.reached]] for verdict in judged]
        head = ["row", "wanted", "found", "reached"]
        if _has_compiled(results):
            head += ["compiled", "reached"]
            for line, verdict in zip(body, verdicts(results, COMPILED), strict=True):
                line += [verdict.found, words[verdict.reached]]
        parts.append("Goals:\n\n" + markdown([head, *body], right=()))
    if results.failures:
        parts.append("Not measured:\n\n" + "\n".join(f"- {_one_line(text)}" for text in results.failures))
    return "\n\n".join(parts) + "\n"


def markdown(rows: Sequence[Sequence[str]], *, right: Sequence[int] | range) -> str:
    """A table with its columns aligned; the first row is the head, ``right`` the columns that end flush."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + (":" if column in right else "-") for column, width in enumerate(widths)]
    return "\n".join([line(rows[0]), f"| {' | '.join(rule)} |", *(line(row) for row in rows[1:])])


def cell(summary: Summary | None, row: Row) -> str:
    """A median and, when there were several rounds, half the distance of the extremes in per cent of it."""
    if summary is None:
        return ABSENT
    text = significant(summary.median, row.digits)
    return text if summary.rounds < 2 else f"{text} ±{summary.spread:.0%}"


def _conditions(results: Results) -> str:
    lines = [f"- {name}: {value}" for name, value in (results.machine | results.settings).items()]
    for peer in results.peers:
        options = "; ".join(peer.options)
        lines.append(f"- {peer.title}: {peer.version}" + (f" ({options})" if options else ""))
    minutes, seconds = divmod(round(results.seconds), 60)
    lines.append(f"- the run took {minutes} min {seconds} s")
    return "\n".join(lines)


def _table(results: Results) -> str:
    head = ["", *(peer.title for peer in results.peers)]
    body = []
    for row in results.rows():
        found = results.summaries(row.id)
        title = f"{row.title}, {row.unit}"
        body.append([title, *(cell(found.get(peer.id), row) for peer in results.peers)])
    return markdown([head, *body], right=range(1, len(head)))


def _comparison(results: Results) -> Iterator[list[str]]:
    titles = {peer.id: peer.title for peer in results.peers}
    for row in results.rows():
        medians = results.medians(row.id)
        rivals = results.medians(row.id, without=NO_PEERS)
        leader = best(rivals, row.better)
        ours = medians.get(OURS)
        if ours is None or leader is None:
            continue
        ahead = beats(ours, rivals[leader], row.better)
        line = [row.title, titles[leader], _ratio(ours, rivals[leader]), "yes" if ahead else "NO"]
        line.append(_ratio(ours, medians.get(DIRECT)))
        if _has_compiled(results):
            compiled = medians.get(COMPILED)
            line += [_ratio(compiled, rivals[leader]), _ratio(compiled, medians.get(DIRECT))]
        yield line


def _shaped(results: Results) -> Iterator[list[str]]:
    for row in results.rows():
        medians = results.medians(row.id)
        if OURS in medians and any(peer in medians for peer in SHAPED):
            yield [row.title, *(_ratio(medians.get(peer), medians[OURS]) for peer in SHAPED)]


def _drawn(results: Results) -> Iterator[list[str]]:
    lots, turns = DRAWN
    for row in results.rows():
        medians = results.medians(row.id)
        if lots in medians and turns in medians:
            yield [row.title, _ratio(medians[lots], medians[turns])]


def _ratio(one: float | None, other: float | None) -> str:
    found = None if one is None or other is None else ratio(one, other)
    return ABSENT if found is None else significant(found, 3)


def _has_compiled(results: Results) -> bool:
    return any(peer.id == COMPILED for peer in results.peers)


def _one_line(text: str) -> str:
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())
