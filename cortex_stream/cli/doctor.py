"""`cortex-stream doctor`: is everything here that a worker needs?"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from cortex_stream.cli.checks import Check, checks_of, local_checks
from cortex_stream.cli.output import console, print_json
from cortex_stream.errors import OperatorError
from cortex_stream.settings.tree import load_settings

_NAME_COLUMNS: Final = 17


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check everything a worker needs: settings, packages, services, models, limits.

    Each failing line ends with the command that repairs it. What these
    settings do not need is a note. Changes nothing.

    Exit codes: 0 a worker can start and do all that is set; 1 something fails, Redis too if it is set.
    """
    found = asyncio.run(_run(None if as_json else console()))
    failed = [check for check in found if check.failed]
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in found]})
    else:
        console().print(
            Text("\nEverything a worker needs is here.", style="green")
            if not failed
            else Text(f"\n{len(failed)} of {len(found)} checks failed.", style="red")
        )
    if failed:
        raise typer.Exit(1)


async def _run(stdout: Console | None) -> list[Check]:
    found = []
    async for check in _all():
        found.append(check)
        if stdout is not None:
            _show(check, stdout)
    return found


async def _all() -> AsyncIterator[Check]:
    for check in local_checks():
        yield check
    try:
        settings = load_settings()
    except OperatorError as error:
        repair = "correct these variables; docs/reference/settings.md has an example of each"
        yield Check("settings", ok=False, detail=str(error), repair=repair)
        return  # what they name cannot be looked at
    yield Check("settings", ok=True, detail="valid")
    async for check in checks_of(settings):
        yield check


def _show(check: Check, stdout: Console) -> None:
    mark, color = (
        ("FAILED", "red") if check.failed else ("ok", "green") if check.ok else ("note", "yellow")
    )
    line = Text(f"{mark:<7}", style=color).append(f"{check.name:<{_NAME_COLUMNS}}", style="bold")
    stdout.print(line.append(check.detail, style="not bold default"), soft_wrap=True)
    if check.repair is not None:
        stdout.print(Text(f"{'':7}repair: {check.repair}"), soft_wrap=True)
