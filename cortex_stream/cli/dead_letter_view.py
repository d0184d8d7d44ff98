"""How dead letters look on a terminal. Every text in here may come from somebody else."""

from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cortex_stream.cli.outcome_view import SHORT_TYPES, plain
from cortex_stream.cli.output import shortened
from cortex_stream.dead_letters.letter import Letter
from cortex_stream.dead_letters.redrive import Turns
from cortex_stream.dead_letters.view import moment, readable, redriven

_CODE_COLUMNS: Final = 18
_FIXED_COLUMNS: Final = 80
"""What the columns take with the least room: 6 + 14 + 18 + 5 + 7 + 6 + 5 + 11, and 8 between."""
_SHORT_BY_TYPE: Final = {full: short for short, full in SHORT_TYPES.items()}


def letters_table(rows: Iterable[tuple[Letter, Turns]], *, columns: int) -> Table:
    """Return one line of at most `columns` characters a letter; times are UTC."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("letter", "written", "code", "type", "request", "tenant", "tries", "redriven"):
        table.add_column(name, no_wrap=True)
    room = max(0, columns - _FIXED_COLUMNS)
    for letter, turns in rows:
        written, asked = moment(letter.written_ms), letter.asked
        table.add_row(
            plain(letter.place),
            "-" if written is None else f"{written[5:10]} {written[11:19]}",
            plain(shortened(letter.code, columns=_CODE_COLUMNS)),
            plain(shortened(_short(asked.type), columns=5 + room // 4)),
            plain(shortened(asked.request_id or "-", columns=7 + room // 2)),
            plain(shortened(asked.tenant, columns=6 + room // 4)),
            "-" if letter.attempts is None else str(letter.attempts),
            redriven(turns),
        )
    return table


def _short(request_type: str | None) -> str:
    return _SHORT_BY_TYPE.get(request_type or "", request_type or "-")


def show_letter(console: Console, letter: Letter, turns: Turns, *, missing: str | None) -> None:
    """Print all of a letter; `missing` says why its payload is not here."""
    origin, asked = letter.origin, letter.asked
    came_from = (
        "its headers do not say"
        if origin is None
        else f"{origin.topic}, partition {origin.partition}, offset {origin.offset}"
    )
    facts = {
        "code": letter.code,
        "message": letter.message,
        "class": letter.error_class,
        "stage": letter.stage,
        "worker": letter.worker,
        "model": letter.model or "-",
        "attempts": "-" if letter.attempts is None else letter.attempts,
        "first time": moment(letter.first_ms) or "-",
        "last time": moment(letter.last_ms) or "-",
        "written": moment(letter.written_ms) or "-",
        "came from": came_from,
        "request": asked.request_id or "its id cannot be read",
        "type": asked.type or "-",
        "source": asked.source or "-",
        "tenant": asked.tenant,
        "redriven": redriven(turns),
        "redrives before": letter.redrives,
    }
    console.print(Text(f"dead letter {letter.place}", style="bold"))
    for name, value in facts.items():
        console.print(plain(f"  {name:<16}{value}"), soft_wrap=True)
    console.print(Text("key", style="bold"))
    _print_lines(console, readable(letter.key) or "-")
    console.print(Text(f"headers ({len(letter.original_headers)})", style="bold"))
    for name, data in letter.original_headers:
        console.print(plain(f"  {name}: {readable(data)}"), soft_wrap=True)
    console.print(Text(f"payload ({letter.size_bytes} bytes)", style="bold"))
    _print_lines(console, missing or readable(letter.value, parse=not letter.harmful) or "empty")
    console.print(
        f"put it back: cortex-stream dead-letters redrive {letter.place} --yes"
        f"\nmend it first: cortex-stream dead-letters redrive {letter.place} --edit",
        soft_wrap=True,
        style="dim",
    )


def _print_lines(console: Console, text: str) -> None:
    for line in text.split("\n"):
        console.print(plain(f"  {line}"), soft_wrap=True)
