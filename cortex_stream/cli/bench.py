"""`cortex-stream bench`: what this machine does, measured so that one can believe it."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from cortex_stream.cli.output import console
from cortex_stream.cli.private_system import PrivateSystem, private_system, run_interruptibly
from cortex_stream.cli.steps import Steps
from cortex_stream.loadtest.corpus import paragraphs, repeated, short_texts
from cortex_stream.loadtest.report import Report
from cortex_stream.loadtest.soak import measure_soak
from cortex_stream.loadtest.throughput import measure_throughput

bench_app = typer.Typer(
    no_args_is_help=True, help="Measure throughput and endurance, on services of its own."
)

_NAME: Final = "bench"
_RESULTS: Final = Path("docs", "benchmarks", "results")

Model = Annotated[str, typer.Option(help="What the worker serves.")]
Cores = Annotated[int, typer.Option(min=1, help="How many the worker may use.")]
Seed = Annotated[int, typer.Option(help="Decides lanes, moments and samples.")]
Save = Annotated[bool, typer.Option("--save", help=f"Write the report to {_RESULTS}/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@bench_app.command()
def throughput(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of raw and kafka.")] = 3,
    copies: Annotated[int, typer.Option(min=1, help="Of every paragraph, numbered.")] = 2,
    short: Annotated[bool, typer.Option("--short", help="Short sentences instead.")] = False,
    model: Model = "minilm",
    cores: Cores = 2,
    seed: Seed = 7,
    save: Save = False,
    as_json: AsJson = False,
) -> None:
    """Compare one worker behind Kafka with raw ONNX Runtime on the same cores.

    Exit code 1 when it does less than 60 % of the raw throughput.
    """
    texts = repeated(short_texts() if short else paragraphs(), copies=copies)

    def measure(system: PrivateSystem, steps: Steps) -> Report:
        return run_interruptibly(
            lambda: measure_throughput(
                system.settings,
                model=system.model,
                worker=system.worker,
                texts=texts,
                repeats=repeats,
                seed=seed,
                cores=cores,
                say=steps.say,
            )
        )

    _run(measure, model=model, cores=cores, save=save, as_json=as_json)


@bench_app.command()
def soak(
    *,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 10,
    model: Model = "minilm",
    cores: Cores = 2,
    seed: Seed = 7,
    save: Save = False,
    as_json: AsJson = False,
) -> None:
    """Load a worker to 80 % and watch its memory from minute 2 on.

    Exit code 1 when it leaves ±5 % of its middle.
    """

    def measure(system: PrivateSystem, steps: Steps) -> Report:
        return run_interruptibly(
            lambda: measure_soak(
                system.settings,
                model=system.model,
                worker=system.worker,
                texts=paragraphs(),
                minutes=minutes,
                seed=seed,
                say=steps.say,
            )
        )

    _run(measure, model=model, cores=cores, save=save, as_json=as_json)


def _run(
    measure: Callable[[PrivateSystem, Steps], Report],
    *,
    model: str,
    cores: int,
    save: bool,
    as_json: bool,
) -> None:
    # With --json stdout is for the report alone.
    shown_on = Console(stderr=True, highlight=False) if as_json else console()
    with (
        Steps(shown_on) as steps,
        private_system(_NAME, model=model, steps=steps, cores=cores) as system,
    ):
        steps.begin("measure")
        report = measure(system, steps)
    if as_json:
        typer.echo(report.to_json(), nl=False)
    else:
        _show(report, shown_on)
    if save:
        page = report.save(_RESULTS, date=dt.datetime.now(tz=dt.UTC).date())
        shown_on.print(f"written: {page}", soft_wrap=True)
    if not report.passed:
        raise typer.Exit(1)


def _show(report: Report, stdout: Console) -> None:
    stdout.print()
    for name, value in report.summary.items():
        shown = f"{value:,.3f}" if isinstance(value, float) else str(value)
        stdout.print(Text(f"  {name:<32} {shown:>12}"))
    color = "green" if report.passed else "red"
    stdout.print(Text(f"\n{report.verdict}", style=color))
