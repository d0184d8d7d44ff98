"""The verdicts of a run as JSON, and as one page with a row for each fault."""

import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.chaos.faults import NOT_INJECTED
from tests.chaos.run import Round

_ADDED = (
    "records",
    "outcomes",
    "lost",
    "conflicting",
    "past_unfinished",
    "kills",
    "repeated",
    "may_repeat",
    "snapshots",
    "given_up",
    "crashes",
)
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Chaos</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; }}
table {{ border-collapse: collapse; }}
td, th {{ border-bottom: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top; }}
.red {{ background: #fdd; }}
</style>
<h1>Chaos: {verdict}</h1>
<table><tr><th>fault<th>what<th>seeds<th>verdict<th>figures<th>found</tr>
{rows}
</table>
<h2>Not injected</h2>
<table>{left_out}</table>
</html>
"""


def summary(rounds: Iterable[Round]) -> list[dict[str, Any]]:
    """Return a row for each fault: seeds, verdict, figures and what was found."""
    by_fault = groupby(sorted(rounds, key=lambda r: (r.fault, r.seed)), key=lambda r: r.fault)
    return [_row(fault, list(of_fault)) for fault, of_fault in by_fault]


def write_report(rounds: list[Round], folder: Path) -> Path:
    """Write `report.json` and `report.html`; return the page."""
    rows = summary(rounds)
    (folder / "report.json").write_text(
        json.dumps({"faults": rows, "not_injected": dict(NOT_INJECTED)}, indent=2), encoding="utf-8"
    )
    page = folder / "report.html"
    page.write_text(
        _PAGE.format(
            verdict="all invariants hold" if all(r.holds for r in rounds) else "violations",
            rows="\n".join(map(_html_row, rows)),
            left_out="\n".join(
                f"<tr><td>{fault}<td>{html.escape(why)}</tr>" for fault, why in NOT_INJECTED.items()
            ),
        ),
        encoding="utf-8",
    )
    return page


def line(round_: Round) -> str:
    """Return one round as a line for the terminal."""
    verdict = round_.verdict
    if verdict is None:
        return f"{round_.fault} seed {round_.seed}: BROKE DOWN after {round_.took_s:.0f} s: {round_.error}"
    said = ", ".join(f"{name} {value:g}" for name, value in verdict.figures.items())
    found = [
        f"\n  {name}: {text}" for name, all_ in verdict.violations.items() for text in all_[:5]
    ]
    return (
        f"{round_.fault} seed {round_.seed}: {'holds' if verdict.holds else 'VIOLATED'}"
        f" ({round_.took_s:.0f} s; {said}){''.join(found)}"
    )


def _row(fault: str, rounds: list[Round]) -> dict[str, Any]:
    verdicts = [asdict(r.verdict) for r in rounds if r.verdict is not None]
    figures: dict[str, float] = {}
    for verdict in verdicts:
        for name, value in verdict["figures"].items():
            before = figures.get(name, 0)
            figures[name] = before + value if name in _ADDED else max(before, value)
    return {
        "fault": fault,
        "what": rounds[0].what,
        "seeds": [r.seed for r in rounds],
        "failed_seeds": [r.seed for r in rounds if not r.holds],
        "holds": all(r.holds for r in rounds),
        "invariants": list(verdicts[0]["violations"]) if verdicts else [],
        "figures": figures,
        "found": [_found(r) for r in rounds if not r.holds],
    }


def _found(round_: Round) -> dict[str, Any]:
    violations: Mapping[str, list[str]] = (
        {} if round_.verdict is None else round_.verdict.violations
    )
    shown = {name: found[:20] for name, found in violations.items() if found}
    return {"seed": round_.seed, "error": round_.error, "violations": shown}


def _html_row(row: Mapping[str, Any]) -> str:
    figures = ", ".join(f"{name} {value:g}" for name, value in row["figures"].items())
    found = html.escape(json.dumps(row["found"])) if row["found"] else ""
    return (
        f'<tr class="{"" if row["holds"] else "red"}"><td>{row["fault"]}'
        f"<td>{html.escape(row['what'])}<td>{len(row['seeds'])}"
        f"<td>{'holds' if row['holds'] else 'violated'}<td>{figures}<td>{found}</tr>"
    )
