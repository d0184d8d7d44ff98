"""What a benchmark says: goals and whether they were met, and the figures behind them."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import orjson

Row = Mapping[str, object]
Bound = Literal["at least", "at most"]

MOST_STOLEN_CORES: Final = 0.1
"""Cores that a hypervisor may take away during a run that is to be compared."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure and its bound.

    Attributes:
        what: a sentence's subject: `CPU per paragraph / raw ONNX Runtime`.
        measured: None: it could not be measured.
        note: why it was not measured, or how it is to be read.
    """

    what: str
    measured: float | None
    bound: Bound
    limit: float
    note: str = ""

    @property
    def verdict(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.measured is None:
            return "not measured"
        met = (
            self.measured >= self.limit if self.bound == "at least" else self.measured <= self.limit
        )
        return "met" if met else "missed"

    def row(self) -> dict[str, object]:
        """Return it flat, for tables and JSON."""
        return {
            "goal": self.what,
            "measured": self.measured,
            "bound": f"{self.bound} {self.limit:g}",
            "verdict": self.verdict,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """One benchmark.

    Attributes:
        profile: names the file: `throughput`, `soak`.
        question: what is compared, in one sentence.
        goals: what it must reach.
        tables: what was measured, by title; the rows of one table have the same names.
        method: how, where, with what.
        series: figures per second by name, in the JSON alone.
        charts: SVG by name.
    """

    profile: str
    question: str
    goals: Sequence[Goal]
    tables: Mapping[str, Sequence[Row]]
    method: Row
    series: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    charts: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no goal that was measured was missed."""
        return all(goal.verdict != "missed" for goal in self.goals)

    @property
    def disturbance(self) -> str:
        """A sentence for whoever would compare it, if the hypervisor gave cores to others meanwhile."""
        stolen = [row["stolen"] for rows in self.tables.values() for row in rows if "stolen" in row]
        most = max((cores for cores in stolen if isinstance(cores, float)), default=0.0)
        if most <= MOST_STOLEN_CORES:
            return ""
        return (
            f"Disturbed: the hypervisor gave up to {most:.2f} cores to others (*stolen*). Measure"
            " again before you compare."
        )

    def to_json(self) -> bytes:
        """Return everything but the charts, indented."""
        content = {
            "profile": self.profile,
            "question": self.question,
            "passed": self.passed,
            "disturbance": self.disturbance,
            "goals": [goal.row() for goal in self.goals],
            "tables": self.tables,
            "method": self.method,
            "series": self.series,
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def to_markdown(self, *, charts: Mapping[str, str]) -> str:
        """Return the report as a page.

        Args:
            charts: the file of each chart, by its name.
        """
        parts = [f"# Benchmark: {self.profile}", self.question]
        parts += [_table([goal.row() for goal in self.goals])] if self.goals else []
        parts += [self.disturbance] if self.disturbance else []
        parts += [f"![{name}]({file})" for name, file in charts.items()]
        for title, rows in self.tables.items():
            parts += [f"## {title}", _table(rows)] if rows else []
        method = [{"what": name, "value": value} for name, value in self.method.items()]
        parts += ["## Method", _table(method)]
        return "\n\n".join(parts) + "\n"

    def save(self, folder: Path, *, date: dt.date) -> Path:
        """Write `<date>-<profile>.md`, `.json` and charts; return the first. Replaces the day's."""
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / f"{date.isoformat()}-{self.profile}.md"
        page.with_suffix(".json").write_bytes(self.to_json())
        files = {name: f"{page.stem}-{name.replace(' ', '-')}.svg" for name in self.charts}
        for name, file in files.items():
            (folder / file).write_text(self.charts[name], encoding="utf-8")
        page.write_text(self.to_markdown(charts=files), encoding="utf-8")
        return page


def shown(value: object) -> str:
    """Return a figure as people read it."""
    match value:
        case None:
            return "-"
        case float():
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def _table(rows: Sequence[Row]) -> str:
    header = list(rows[0])
    lines = [
        header,
        ["---"] * len(header),
        *([shown(row[name]) for name in header] for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
