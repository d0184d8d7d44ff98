"""The rounds that are kept in the repository: `docs/operations/chaos-results.json` and its table.

A round replaces the one of the same fault and seed before it; all others stay. That the same worker
failed before, with the same seed, stays, too.
"""

import datetime as dt
import json
import subprocess
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.chaos.faults import FAULTS, NOT_INJECTED
from tests.chaos.run import Round

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "docs" / "operations"
_PRODUCT = ("agents", "cortex_stream", "schemas", "topics")
_KEPT = (
    "kills",
    "records",
    "lost",
    "conflicting",
    "past_unfinished",
    "repeated",
    "may_repeat",
    "given_up",
    "recovery_s",
    "rss_ratio",
    "rss_peak_ratio",
    "throughput_ratio",
    "standstill_s",
)
_ADDED = frozenset(_KEPT[:8])
_MOST_FOUND = 3
_MOST_CHARACTERS = 200
_PAGE = """# What breaking it on purpose has shown

Written by `make chaos ARGS="--save"`, a row for each fault; [chaos.md](chaos.md) says how a round goes and what must hold. The [same by round](chaos-results.json), with seeds and what was found.

| fault | what | seeds | kills | records | lost | conflicting | committed past unfinished | repeated / allowed | answered again after, s | memory after / before | verdict | commit |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
{rows}

Sums over the seeds, but for times and memory: there it is the worst. *allowed*: what was finished and not committed at a kill. *answered again*: the slowest lane, from the heal to the first answer to what was asked since the fault began; bound {bound} s where the fault is an outage. A dash: not measured. *commit*: that of the worker; `+` after it: with changes.

{more}

{without}Not injected: {left_out}; the reasons are in the report and in `tests/chaos/faults.py`.
"""


def save(rounds: Iterable[Round], folder: Path = FOLDER) -> Path:
    """Add rounds to those that are kept; return the table."""
    kept_in, table = folder / "chaos-results.json", folder / "chaos-results.md"
    kept = json.loads(kept_in.read_text(encoding="utf-8")) if kept_in.exists() else []
    commit, day = commit_of_the_worker(), dt.datetime.now(dt.UTC).date().isoformat()
    of_round = {(each["fault"], each["seed"]): each for each in kept}
    for done in rounds:
        new, old = _kept(done, commit=commit, day=day), of_round.get((done.fault, done.seed))
        if old is not None and old["commit"] == commit:
            failed = old.get("failed_before", 0) + (not old["holds"])
            new |= {"failed_before": failed} if failed else {}
        of_round[done.fault, done.seed] = new
    kept = [of_round[which] for which in sorted(of_round)]
    lines = ",\n".join(json.dumps(each) for each in kept)
    kept_in.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    table.write_text(page(kept), encoding="utf-8")
    return table


def page(kept: list[dict[str, Any]]) -> str:
    """Return the table of kept rounds, sorted by fault."""
    by_fault = [(f, list(all_)) for f, all_ in groupby(kept, key=lambda each: str(each["fault"]))]
    without = [fault for fault in FAULTS if fault not in dict(by_fault)]
    return _PAGE.format(
        rows="\n".join(_row(fault, rounds) for fault, rounds in by_fault),
        bound=10,
        more=_more(dict(by_fault)),
        without=f"No round is kept of {', '.join(without)}.\n\n" if without else "",
        left_out=", ".join(NOT_INJECTED),
    )


def commit_of_the_worker() -> str:
    """Return the commit of the product, and `+` where its files differ from it."""
    commit = _git("rev-parse", "--short=7", "HEAD")
    return commit + ("+" if _git("status", "--porcelain", "--", *_PRODUCT) else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],  # noqa: S607 (of whoever develops)
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _kept(done: Round, *, commit: str, day: str) -> dict[str, Any]:
    figures = {} if done.verdict is None else done.verdict.figures
    violations = {} if done.verdict is None else done.verdict.violations
    found = [
        f"{name}: {text}"[:_MOST_CHARACTERS]
        for name, all_ in violations.items()
        for text in all_[:_MOST_FOUND]
    ]
    return {
        "fault": done.fault,
        "seed": done.seed,
        "holds": done.holds,
        "commit": commit,
        "day": day,
        "took_s": round(done.took_s),
        **{name: figures[name] for name in _KEPT if name in figures},
        "found": [*found, *([done.error[:_MOST_CHARACTERS]] if done.error else [])],
    }


def _row(fault: str, rounds: list[dict[str, Any]]) -> str:
    figure = {name: _worst(name, rounds) for name in _KEPT}
    good = sum(each["holds"] for each in rounds)
    repeated = sum(each["holds"] and "failed_before" in each for each in rounds)
    verdict = "holds" if good == len(rounds) else f"**{good} of {len(rounds)} hold**"
    # Without that rule nobody looked at each death for what had not been committed.
    allowed = figure["may_repeat"] if "repeats" in FAULTS[fault].invariants else "-"
    cells = (
        fault,
        FAULTS[fault].what,
        len(rounds),
        *(figure[name] for name in _KEPT[:5]),
        f"{figure['repeated']} / {allowed}",
        figure["recovery_s"],
        figure["rss_ratio"],
        f"{verdict}, {repeated} only when repeated" if repeated else verdict,
        ", ".join(sorted({each["commit"] for each in rounds})),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _worst(name: str, rounds: list[dict[str, Any]]) -> str:
    values = [each[name] for each in rounds if name in each]
    if not values:
        return "-"
    return f"{sum(values) if name in _ADDED else max(values):g}"


def _more(by_fault: dict[str, list[dict[str, Any]]]) -> str:
    rounds = by_fault.get("F13l", [])
    ratios = [each["throughput_ratio"] for each in rounds if "throughput_ratio" in each]
    if not ratios:
        return ""
    return (
        f"F13l: at least {min(ratios):.0%} of the throughput before workers began to join and leave;"
        f" no partition waited longer than {_worst('standstill_s', rounds)} s."
    )
