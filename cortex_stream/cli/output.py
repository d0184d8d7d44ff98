"""How the command line speaks: plain at 80 columns in a file, coloured on a terminal."""

from collections.abc import Mapping
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.text import Text

from cortex_stream.errors import CortexError, OperatorError


def console() -> Console:
    """Return the console of stdout as it is now (tests replace stdout)."""
    return Console(highlight=False)


def show_hint(text: str) -> None:
    """Print on stderr what a person may want to know and a program would stumble over."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, style="dim")


def show_error(error: CortexError) -> None:
    """Print the error in red on stderr and, where one is known, the command that repairs it."""
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    stderr.print(Text(f"error: {error}", style="red"))
    if isinstance(error, OperatorError) and error.repair is not None:
        stderr.print(Text(f"repair: {error.repair}"))


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


def shortened(text: str, *, columns: int) -> str:
    """Return the text on one line of at most `columns` characters."""
    line = " ".join(text.split())
    return line if len(line) <= columns else line[: columns - 1] + "…"
