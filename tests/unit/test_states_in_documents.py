"""The documents' diagram and table of the tunnel's states say what the code's table says."""

from __future__ import annotations

from pathlib import Path

from halftunnel_vpn.client.supervisor.states import START, STATES
from halftunnel_vpn.control.status_schema import TunnelState

DOCS = Path(__file__).parents[2] / "docs"
DIAGRAM = DOCS / "ARCHITECTURE.md"
TRAFFIC = DOCS / "HOST.md"


def between(document: Path, begin: str, end: str) -> list[str]:
    """Return the lines of ``document`` between two lines."""
    lines = document.read_text().splitlines()
    first = lines.index(begin) + 1
    return lines[first : lines.index(end, first)]


def diagram() -> list[str]:
    """Return the diagram that the table of transitions means, in Mermaid's language."""
    lines = ["stateDiagram-v2", f"    [*] --> {START}"]
    for state in STATES.values():
        events: dict[TunnelState, list[str]] = {}
        for event, target in state.leads_to.items():
            events.setdefault(target, []).append(event.value)
        lines += [f"    {state.name} --> {target}: {', '.join(names)}" for target, names in events.items()]
    return lines


def test_the_diagram_in_the_architecture_is_the_table_of_transitions() -> None:
    wanted = diagram()
    written = between(DIAGRAM, "```mermaid", "```")
    assert written == wanted, "write this into docs/ARCHITECTURE.md:\n" + "\n".join(wanted)


def test_the_table_of_allowed_traffic_names_the_policy_of_each_state() -> None:
    rows = [line.split("|") for line in between(TRAFFIC, "<!-- states: begin -->", "<!-- states: end -->")]
    written = {cells[1].strip(" `"): cells[2].strip(" `") for cells in rows[2:]}
    assert written == {name: getattr(state.allows, "__name__", "") for name, state in STATES.items()}
