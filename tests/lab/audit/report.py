"""The table of a run, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NAMES = {"all": "all paths (the client's ISP)", "A": "path A alone", "B": "path B alone"}


def render(result: Mapping[str, Any]) -> str:
    """Return a Markdown table of every run, with what it was measured by."""
    world = result["world"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [f"{result['date']}, {world['sites']} sites, seed {world['seed']}; {versions}", ""]
    for name, run in result["runs"].items():
        lines += [*_run(name, run), ""]
    return "\n".join(lines)


def _run(name: str, run: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{name}: {run['loads']} loads, chance {run['chance']:.1%}; "
        f"bytes {_change(run['bytes']['overhead'])}, "
        f"median page load {run['page_load_median']:.2f} s ({_change(run['page_load_change'])})",
        "",
        "| observer | recognised | 95 % interval | attacker | others |",
        "|---|---|---|---|---|",
    ]
    for observer, found in run["observers"].items():
        best = found["best"]
        mean, low, high = found["attackers"][best]
        others = ", ".join(
            f"{attacker} {value[0]:.1%}" for attacker, value in found["attackers"].items() if attacker != best
        )
        title = NAMES.get(observer, observer)
        lines.append(f"| {title} | {mean:.1%} | {low:.1%} - {high:.1%} | {best} | {others} |")
    lines += [
        "",
        f"with a third of the training loads, all paths: {run['a_third_of_the_training']:.1%}; "
        f"B halves matched to their A halves, of 25: {run['matching']:.1%}",
    ]
    if run["not_quiet"]:
        lines.append(f"{run['not_quiet']} loads after which the paths did not fall silent")
    for verdict in run.get("records", ()):
        if found := "; ".join(_record_log(verdict)):
            lines.append(f"record log of {verdict['seconds']:.0f} s: {found}")
    if run.get("four_bursts"):
        counts = ", ".join(f"{NAMES.get(path, path)}: {count}" for path, count in run["four_bursts"].items())
        lines.append(f"handshakes by the four-burst model: {counts}")
    if "open_world" in run:
        lines.append(f"open world, {run['open_world']['sites']} other sites, r = 20:")
        for observer, found in run["open_world"]["observers"].items():
            recall, precision = found["recall_at_precision_0.5"], found["precision_at_recall_0.5"]
            lines.append(
                f"    {NAMES[observer]}: recall at a precision of 0.5: {recall:.2f}; "
                f"precision at a recall of 0.5: {precision:.2f}"
            )
    return lines


def _record_log(verdict: Mapping[str, Any]) -> Iterator[str]:
    for score in verdict["paths"]:
        if score["cell"] is not None:
            auc = score["lateness_auc"]
            yield (
                f"path {score['path']}: cells of {score['cell']} B, off slot {score['off_slot']}, "
                f"off size {score['off_size']}, escapes {score['escapes'] or 'none'}, "
                f"lateness {'unknown' if auc is None else f'AUC {auc:.3f}'}"
            )
    yield from (f"BROKEN: {line}" for line in verdict["broken"])


def _change(share: float) -> str:
    """Return a relative change; one that rounds to nothing has no sign."""
    return f"{share:+.1%}" if abs(share) >= 0.0005 else "+0 %"
