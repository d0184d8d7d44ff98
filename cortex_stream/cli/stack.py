"""`cortex-stream stack …`: real services on this machine."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from cortex_stream.cli.output import console
from cortex_stream.cli.steps import Steps
from cortex_stream.devstack.service import Condition
from cortex_stream.devstack.stack import DEFAULT_NAME, Stack

stack_app = typer.Typer(
    no_args_is_help=True, help="Run Kafka, Redis and PostgreSQL on this machine, without Docker."
)

DataDir = Annotated[Path, typer.Option(help="Holds the stacks, one folder each.")]
Name = Annotated[str, typer.Option(help="Which stack; several run side by side.")]
_DATA_DIR: Final = Path(".cortex/stack")


@stack_app.command()
def up(
    *,
    data_dir: DataDir = _DATA_DIR,
    name: Name = DEFAULT_NAME,
    secure: Annotated[
        bool, typer.Option("--secure", help="Kafka also with TLS and SCRAM (first start only).")
    ] = False,
) -> None:
    """Start what does not run and wait until it answers."""
    with Steps(console()) as shown:
        _stack(data_dir, name, secure=secure).up(shown)
        where = "" if data_dir == _DATA_DIR else f" --data-dir {data_dir}"
        which = "" if name == DEFAULT_NAME else f" --name {name}"
        shown.say(f'stack is up; to use it: eval "$(cortex-stream stack env{where}{which})"')


@stack_app.command()
def down(*, data_dir: DataDir = _DATA_DIR, name: Name = DEFAULT_NAME) -> None:
    """Stop the services; the data stay."""
    with Steps(console()) as shown:
        _stack(data_dir, name).down(shown)
        shown.say("stack is down")


@stack_app.command()
def status(
    *,
    data_dir: DataDir = _DATA_DIR,
    name: Name = DEFAULT_NAME,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a JSON array.")] = False,
) -> None:
    """Show how each service is."""
    services = _stack(data_dir, name).status()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(service) for service in services]))
        return
    table = Table("service", "state", "pid", "port", "version", "memory MB")
    for each in services:
        color = "green" if each.state is Condition.RUNNING else "red"
        pid, memory = (str(each.pid), str(each.memory_mb)) if each.pid else ("", "")
        table.add_row(
            each.service, f"[{color}]{each.state}", pid, str(each.port), each.version, memory
        )
    console().print(table)


@stack_app.command()
def env(*, data_dir: DataDir = _DATA_DIR, name: Name = DEFAULT_NAME) -> None:
    """Print the variables that point cortex-stream to the stack, for `eval`."""
    for variable, value in _stack(data_dir, name).environment().items():
        typer.echo(f"export {variable}={shlex.quote(value)}")


@stack_app.command()
def wipe(*, data_dir: DataDir = _DATA_DIR, name: Name = DEFAULT_NAME) -> None:
    """Stop the services and delete their data."""
    with Steps(console()) as shown:
        _stack(data_dir, name).wipe(shown)
        shown.say("stack is gone")


def _stack(data_dir: Path, name: str, *, secure: bool = False) -> Stack:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise typer.BadParameter("letters, digits, - and _ only", param_hint="--name")
    return Stack(data_dir / name, secure=secure)
