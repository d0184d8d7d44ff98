"""The command `cortex-stream`: one table of commands, each imported only when it is asked for.

Invariants:
    Showing help imports no command, so it takes a fraction of a second whatever the commands need.
    An error of ours ends as one readable line and the command that repairs it, never a traceback.
"""

import importlib
import logging
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from cortex_stream.errors import CortexError
from cortex_stream.version import VERSION

_START: Final = "Start here"
_ASK: Final = "Ask and listen"
_OPERATE: Final = "Operate"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives. `attribute` is a function, or a `typer.Typer` with sub-commands."""

    module: str
    attribute: str
    panel: str
    summary: str


COMMANDS: Final = {
    "demo": Entry("demo", "demo", _START, "Show the whole system at work on this machine."),
    "stack": Entry("stack", "stack_app", _START, "Run Kafka, Redis and PostgreSQL here, natively."),
    "doctor": Entry("doctor", "doctor", _START, "Check everything a worker needs."),
    "worker": Entry("worker", "worker", _START, "Run a worker in this terminal."),
    "send": Entry("send", "send", _ASK, "Send a request, and wait for its outcome if asked to."),
    "results": Entry("results", "results", _ASK, "Show outcomes as they are, or as they come."),
    "topics": Entry("topics", "topics_app", _OPERATE, "Compare topics with the catalogue; create."),
    "models": Entry("models", "models_app", _OPERATE, "Pull, check and list models."),
    "dead-letters": Entry(
        "dead_letters", "dead_letters_app", _OPERATE, "Look at dead letters; put them back."
    ),
    "replay": Entry("replay", "replay_app", _OPERATE, "Have old requests answered again; compare."),
    "bench": Entry("bench", "bench", _OPERATE, "Measure speed, fairness and endurance."),
    "docs": Entry("docs", "docs_app", _OPERATE, "Write the generated reference and schemas."),
}


def load_command(name: str) -> Any:
    """Import a command of the table and return it, ready to be invoked."""
    entry = COMMANDS[name]
    target = getattr(importlib.import_module(f"cortex_stream.cli.{entry.module}"), entry.attribute)
    if isinstance(target, typer.Typer):
        return typer.main.get_group(target)
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(name)(target)
    return typer.main.get_command(single)


class _Commands(TyperGroup):
    """Lists the table, imports what is invoked, and shows the errors that we foresaw."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the invoked command itself in place of its line in the table."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name is not None else listed, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error that we foresaw becomes a line on stderr and exit code 1."""
        try:
            return super().invoke(ctx)
        except CortexError as error:
            from cortex_stream.cli.output import show_error  # noqa: PLC0415 (rich takes 0.1 s)

            show_error(error)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="cortex-stream",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a bug shows Python's own traceback, without local values
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:  # noqa: FBT001 (typer calls it so)
    if value:
        typer.echo(f"cortex-stream {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """AI inference on Kafka: embeds and classifies texts; no request is lost in silence.

    New here? [bold]cortex-stream demo[/bold] shows it in a minute, with nothing to set up.
    Settings come from the environment: docs/reference/settings.md.

    Exit codes, where a command names no others: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    # What it would say while it retries ends as one readable error.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _listed() -> None:
    """Stand for a command in the list; `resolve_command` puts the real one in its place."""


for _name, _entry in COMMANDS.items():
    app.command(_name, help=_entry.summary, rich_help_panel=_entry.panel)(_listed)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    app(prog_name="cortex-stream")
