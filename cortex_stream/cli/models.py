"""`cortex-stream models …`: the versions on this machine, and how they come here.

Exit codes: 0 done, also when there was nothing to do; 1 it failed, or a version is damaged; 2 wrong
usage. Nothing asks a question.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from cortex_stream.cli.output import console, print_json
from cortex_stream.cli.steps import Steps
from cortex_stream.errors import ModelLoadFailed, UnsafeModel
from cortex_stream.registry.known import KNOWN
from cortex_stream.registry.pull import pull as pull_model
from cortex_stream.registry.store import ModelStore, ModelVersion
from cortex_stream.settings.tree import load_settings

models_app = typer.Typer(no_args_is_help=True, help="Pull, check, list and export models.")

AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON on stdout.")]


@models_app.command("list")
def list_models(*, as_json: AsJson = False) -> None:
    """Show the installed versions, and the known models that are not installed."""
    store = ModelStore(load_settings().models)
    rows = [_look(store, reference) for reference in store.references()]
    installed = {str(row["name"]) for row in rows}
    available = [
        {"name": known.name, "version": known.version, "state": "available"}
        for known in KNOWN.values()
        if known.name not in installed
    ]
    if as_json:
        typer.echo(json.dumps([*rows, *available]))
        return
    table = Table("model", "state", "precision", "dims", "digest")
    for row in [*rows, *available]:
        table.add_row(
            f"{row['name']}@{row['version']}",
            str(row["state"]),
            str(row.get("precision", "")),
            str(row.get("dims") or ""),
            str(row.get("digest", ""))[:19],
        )
    console().print(table)


@models_app.command()
def pull(
    names: Annotated[list[str], typer.Argument(help=f"Of {', '.join(KNOWN)}.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Ensure that models are installed and sound; downloads resume, damage is repaired."""
    settings = load_settings().models
    for name in names:
        with Steps(Console(stderr=True, highlight=False)) as steps:
            pulled = pull_model(name, settings, progress=_telling(steps, f"downloading {name}"))
        version = pulled.version
        if as_json:
            print_json({**_described(version), "changed": pulled.changed, "damage": pulled.damage})
            continue
        if pulled.damage:
            typer.echo(f"replaced a damaged version: {pulled.damage}")
        done = "installed" if pulled.changed else "already there:"
        typer.echo(f"{done} {version.name}@{version.version} in {version.folder}")


@models_app.command()
def verify(
    references: Annotated[
        list[str] | None, typer.Argument(help="`name` or `name@version`; all, if none is named.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Check every byte of installed versions against their digest; exit 1 if one is damaged."""
    store = ModelStore(load_settings().models)
    rows = [_look(store, reference) for reference in references or store.references()]
    if as_json:
        typer.echo(json.dumps(rows))
    for row in rows if not as_json else ():
        why = f": {row['why']}" if "why" in row else ""
        typer.echo(f"{row['state']} {row['name']}@{row['version']}{why}")
    if any(row["state"] != "sound" for row in rows):
        raise typer.Exit(1)


@models_app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="With the model's files.")
    ],
    *,
    name: Annotated[str, typer.Option(help="How requests name the model.")],
    version: Annotated[str, typer.Option(help="New for this name; versions never change.")] = "1",
    precision: Annotated[
        Literal["fp32", "fp16", "int8"], typer.Option(help="int8 for CPUs, fp16 for GPUs.")
    ] = "int8",
    licence: Annotated[str, typer.Option(help="Of the weights, as SPDX says it.")] = "unknown",
    as_json: AsJson = False,
) -> None:
    """Turn a local Hugging Face folder into a version (needs the extra `export`)."""
    from cortex_stream.registry.export import export as export_model  # noqa: PLC0415 (as rarely used)

    made = export_model(
        folder,
        load_settings().models,
        name=name,
        version=version,
        precision=precision,
        licence=licence,
    )
    if as_json:
        print_json(_described(made))
        return
    typer.echo(f"installed {made.name}@{made.version} in {made.folder}")


def _look(store: ModelStore, reference: str) -> dict[str, Any]:
    """Return the version's row: `sound`, or `damaged` and why."""
    try:
        return {**_described(store.resolve(reference)), "state": "sound"}
    except (UnsafeModel, ModelLoadFailed) as error:
        name, _, version = reference.partition("@")
        return {"name": name, "version": version, "state": "damaged", "why": str(error)}


def _described(version: ModelVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "digest": version.digest,
        "task": version.manifest.task,
        "precision": version.manifest.precision,
        "batch_invariant": version.manifest.is_batch_invariant,
        "dims": version.manifest.dims,
        "folder": str(version.folder),
    }


def _telling(steps: Steps, what: str) -> Callable[[int, int], None]:
    return lambda done_bytes, total_bytes: steps.advanced(what, done=done_bytes, total=total_bytes)
