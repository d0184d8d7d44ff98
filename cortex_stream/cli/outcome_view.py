"""How an outcome looks to people: vectors shortened, labels as a table, errors in red.

Every text in here may come from somebody else: nothing is read as markup or control sequences.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cortex_stream.cli.output import shortened
from cortex_stream.loadtest.ledger import KIND_BY_TYPE, vectors_of
from schemas.outcomes import OutcomeKind
from schemas.requests import CLASSIFY, EMBED

SHORT_TYPES: Final = {"embed": EMBED, "classify": CLASSIFY}
"""What people call the request types."""

_SHORT_BY_TYPE: Final = {full: short for short, full in SHORT_TYPES.items()}
_COLORS: Final = {
    OutcomeKind.RESULT: "green",
    OutcomeKind.REJECTED: "red",
    OutcomeKind.EXPIRED: "yellow",
    OutcomeKind.DEAD_LETTER: "red",
}
_NUMBERS_SHOWN: Final = 3
_LABELS_SHOWN: Final = 5
_TEXT_COLUMNS: Final = 34


def kind_of(outcome: Mapping[str, Any]) -> OutcomeKind:
    """Return how the request ended."""
    return KIND_BY_TYPE[outcome["type"]]


def show_outcome(console: Console, outcome: Mapping[str, Any], *, texts: Sequence[str]) -> None:
    """Print an outcome (a parsed record of the results topic) and what it says about each text."""
    kind, data = kind_of(outcome), outcome["data"]
    console.print(Text(kind.value, style=f"bold {_COLORS[kind]}"), plain(data["request_id"]))
    if data["error"] is not None:
        console.print(error_text(data["error"]), soft_wrap=True)
    if data["output"] is not None:
        console.print(_table(data["output"], texts))
    console.print(_facts(data), style="dim")


def show_line(console: Console, outcome: Mapping[str, Any]) -> None:
    """Print an outcome on one line: when, how, which request, and what came of it."""
    kind, data = kind_of(outcome), outcome["data"]
    time = str(outcome["time"])
    line = plain(f"{time[5:10]} {time[11:19]}  ")  # month, day, hour, minute, second: UTC
    line.append(f"{kind.value:<11}", style=_COLORS[kind])
    line.append_text(plain(f" {shortened(str(data['request_id']), columns=32):<32} "))
    if "total" in data["timings_ms"]:
        line.append(f"{data['timings_ms']['total']:7.1f} ms ")
    if data["error"] is not None:
        line.append_text(plain(f" {data['error']['code']}: {data['error']['message']}"))
    else:
        line.append_text(
            plain(f" {_SHORT_BY_TYPE.get(data['request_type'], data['request_type'])}")
        )
    if console.is_terminal:  # a file gets whole lines
        line.truncate(console.width, overflow="ellipsis")
    console.print(line, soft_wrap=True)


def error_text(error: Mapping[str, Any]) -> Text:
    """Return code and message of an error, which names the field, in red."""
    again = " (may succeed later)" if error["retryable"] else ""
    return Text("  ").append_text(plain(f"{error['code']}: {error['message']}{again}", "red"))


def plain(value: object, style: str = "") -> Text:
    """Return text of a stranger: no markup, and no control character reaches the terminal."""
    return Text("".join(c if c.isprintable() else " " for c in str(value)), style=style)


def _table(output: Mapping[str, Any], texts: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 2), pad_edge=True)
    table.add_column("text", no_wrap=True)
    table.add_column("tokens", justify="right")
    cells = _vector_cells(output, table) if "vectors" in output else _label_cells(output, table)
    for index, (tokens, cut, cell) in enumerate(
        zip(output["tokens"], output["truncated"], cells, strict=True)
    ):
        text = shortened(str(texts[index]), columns=_TEXT_COLUMNS) if index < len(texts) else index
        table.add_row(plain(text), f"{tokens}{' (cut)' if cut else ''}", cell)
    return table


def _vector_cells(output: Mapping[str, Any], table: Table) -> list[Text]:
    table.add_column(f"vector ({output['dims']} numbers)", no_wrap=True)
    return [
        Text(f"[{', '.join(f'{number:.3f}' for number in vector[:_NUMBERS_SHOWN])}, …]")
        for vector in vectors_of(output)
    ]


def _label_cells(output: Mapping[str, Any], table: Table) -> list[Text]:
    table.add_column("labels, best first")
    return [
        Text("\n").join(
            plain(f"{each['score']:6.1%}  {each['label']}") for each in scores[:_LABELS_SHOWN]
        )
        for scores in output["classifications"]
    ]


def _facts(data: Mapping[str, Any]) -> Text:
    timings = [f"{name} {value:.1f} ms" for name, value in data["timings_ms"].items()]
    facts = [*timings, *([f"attempt {data['attempt']}"] if data["attempt"] > 1 else ())]
    if data["model"] is not None:
        facts.insert(0, f"{data['model']['name']}@{data['model']['version']}")
    if data["cache"] is not None:
        facts.append(f"cache {data['cache']}")
    return plain("  " + " · ".join(facts))
