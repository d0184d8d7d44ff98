"""`cortex-stream bench PROFILE`: what this machine does, measured so that one can believe it."""

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cortex_stream.cli.output import console
from cortex_stream.cli.private_system import private_services, run_interruptibly
from cortex_stream.cli.steps import Steps
from cortex_stream.clock import SystemClock
from cortex_stream.loadtest.profiles.cost import measure_cost
from cortex_stream.loadtest.profiles.flood import measure_flood
from cortex_stream.loadtest.profiles.latency import measure_latency
from cortex_stream.loadtest.profiles.mixed import measure_mixed
from cortex_stream.loadtest.profiles.overload import measure_overload
from cortex_stream.loadtest.profiles.replay import measure_replay
from cortex_stream.loadtest.profiles.scale import measure_scale
from cortex_stream.loadtest.profiles.soak import measure_soak
from cortex_stream.loadtest.profiles.throughput import measure_throughput
from cortex_stream.loadtest.report import Report, Row, shown
from cortex_stream.loadtest.sides import Bench

_NAME: Final = "bench"
_RESULTS: Final = Path("docs", "benchmarks", "results")
_COLORS: Final = {"met": "green", "missed": "red", "not measured": "yellow"}


@dataclass(frozen=True, slots=True)
class Profile:
    """A benchmark, and how long each of its measurements takes by default."""

    measure: Callable[[Bench], Awaitable[Report]]
    seconds: float


class ProfileName(StrEnum):
    """The benchmarks there are."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"
    MIXED = "mixed"
    FLOOD = "flood"
    OVERLOAD = "overload"
    REPLAY = "replay"
    SCALE = "scale"
    SOAK = "soak"
    COST = "cost"


PROFILES: Final = {
    ProfileName.THROUGHPUT: Profile(measure_throughput, seconds=5),
    ProfileName.LATENCY: Profile(measure_latency, seconds=12),
    ProfileName.MIXED: Profile(measure_mixed, seconds=60),
    ProfileName.FLOOD: Profile(measure_flood, seconds=25),
    ProfileName.OVERLOAD: Profile(measure_overload, seconds=60),
    ProfileName.REPLAY: Profile(measure_replay, seconds=60),
    ProfileName.SCALE: Profile(measure_scale, seconds=10),
    ProfileName.SOAK: Profile(measure_soak, seconds=600),
    ProfileName.COST: Profile(measure_cost, seconds=4),
}


def bench(
    profiles: Annotated[list[ProfileName], typer.Argument(metavar="PROFILE", help="What to do.")],
    *,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Of one measurement; each profile has its own.")
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Measure other people's loops, too.")
    ] = True,
    model: Annotated[str, typer.Option(help="What every side runs.")] = "minilm",
    cores: Annotated[int, typer.Option(min=1, help="How many each side may use.")] = 2,
    seed: Annotated[int, typer.Option(help="Decides texts, lanes, moments and samples.")] = 7,
    save: Annotated[bool, typer.Option("--save", help=f"Write reports to {_RESULTS}/.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Measure on services of its own, which are gone afterwards.

    throughput: a backlog, against raw ONNX Runtime and other people's
    loops. latency: an open loop at half and a fifth of a loop's capacity.
    mixed: critical requests beside a low backlog. flood: one lane floods,
    one tenant does. overload: three times the capacity. replay: live requests
    beside one. scale: two workers and a model that sleeps. soak: ten minutes at 80 %. cost: processor time
    of a request besides its model, and of late requests.

    Exit code 1 when a goal is missed.
    """
    # With --json stdout is for the reports alone.
    shown_on = Console(stderr=True, highlight=False) if as_json else console()
    passed = True
    with Steps(shown_on) as steps, private_services(_NAME, model=model, steps=steps) as services:
        for name in profiles:
            steps.begin(name.value)
            given = Bench(
                settings=services.settings,
                model=services.model,
                folder=services.logs,
                cores=cores,
                seed=seed,
                seconds=seconds or PROFILES[name].seconds,
                peers=peers,
                clock=SystemClock(),
                say=steps.say,
            )
            report = run_interruptibly(lambda given=given, name=name: _measure(given, name))  # type: ignore[misc]
            passed &= report.passed
            _show(report, shown_on)
            if as_json:
                typer.echo(report.to_json(), nl=False)
            if save:
                page = report.save(_RESULTS, date=dt.datetime.now(tz=dt.UTC).date())
                shown_on.print(f"written: {page}", soft_wrap=True)
    if not passed:
        raise typer.Exit(1)


async def _measure(given: Bench, name: ProfileName) -> Report:
    return await PROFILES[name].measure(given)


def _show(report: Report, stdout: Console) -> None:
    stdout.print(Text(f"\n{report.profile}: {report.question}"), soft_wrap=True)
    for title, rows in report.tables.items():
        if rows:
            stdout.print(Text(f"\n{title}", style="bold"))
            stdout.print(_table(rows))
    stdout.print(_goals(report))
    if report.disturbance:
        stdout.print(Text(report.disturbance, style="yellow"), soft_wrap=True)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = [name for name in rows[0] if any(row[name] != 0 for row in rows)]  # room for the rest
    for name in names:
        words = isinstance(rows[0][name], str)
        table.add_column(name, justify="left" if words else "right")
    for row in rows:
        table.add_row(*(shown(row[name]) for name in names))
    return table


def _goals(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("goal", "measured", "bound", "verdict", "note"):
        table.add_column(name, justify="right" if name == "measured" else "left")
    for goal in report.goals:
        row = goal.row()
        verdict = Text(goal.verdict, style=_COLORS[goal.verdict])
        table.add_row(goal.what, shown(goal.measured), str(row["bound"]), verdict, goal.note)
    return table
