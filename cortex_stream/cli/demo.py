"""`cortex-stream demo`: the whole system at work, on this machine, with real text."""

import sys
from os.path import relpath
from shutil import which
from typing import Annotated, Final

import numpy as np
import psutil
import typer
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from cortex_stream.cli.outcome_view import plain
from cortex_stream.cli.output import console, shortened
from cortex_stream.cli.private_system import PrivateSystem, private_system, run_interruptibly
from cortex_stream.cli.steps import Steps
from cortex_stream.clock import SystemClock
from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.corpus import prose
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import (
    LoadRequest,
    classify_requests,
    embed_requests,
    request_value,
)
from cortex_stream.loadtest.session import LoadSession
from cortex_stream.settings.tree import load_settings
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from schemas.requests import EMBED

_NAME: Final = "demo"
_SEED: Final = 7
_CLASSIFIED: Final = 60
_LABELS: Final = ("numbers and arithmetic", "classes and objects", "debugging", "text and strings")
_QUESTION: Final = "How can I stop a running program to look at its variables?"
_NEAREST: Final = 3
_EVERY_S: Final = 0.2


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running, to go on with.")
    ] = False,
) -> None:
    """Start everything, answer a few hundred real requests, show what came of it, stop.

    Brings its own Kafka, Redis, PostgreSQL, model and worker; touches
    nothing that runs already. Ctrl-C at any moment leaves nothing behind.
    """
    stdout = console()
    stdout.print("[bold]Cortex Stream demo[/bold]: real services, a real model, real text\n")
    keep_models = load_settings().models.folder if keep else None
    with (
        Steps(stdout) as steps,
        private_system(_NAME, model="minilm", steps=steps, keep_models=keep_models) as system,
    ):
        run_interruptibly(lambda: _show(system, steps, stdout))
        if keep:
            _show_how_to_go_on(system, stdout)
        else:
            stdout.print("\nStopping and wiping everything (--keep leaves it running) …")
    stdout.print("Left running." if keep else "Done: nothing is left behind.")


async def _show(system: PrivateSystem, steps: Steps, stdout: Console) -> None:
    clock = SystemClock()

    def seen(ledger: Ledger) -> None:
        system.worker.check()
        if ledger.sent_count > 1:
            steps.advanced("requests", done=len(ledger.answers), total=ledger.sent_count)

    async with LoadSession(system.settings, clock=clock, every_s=_EVERY_S) as session:
        question = embed_requests([_QUESTION], run="question", seed=_SEED)
        asked = await session.burst(question, seen=seen, keep_events=True)
        took_s = clock.unix_ms() / 1000 - psutil.Process().create_time()
        stdout.print(f"\n[bold]first result after {took_s:.1f} s[/bold]\n")

        texts, wrong = prose(), _wrong_on_purpose()
        stdout.print(
            f"{len(texts)} paragraphs of Python's own reference to embed, {_CLASSIFIED} of them to"
            f" classify,\n{len(wrong)} requests that are wrong on purpose; all at once:"
        )
        requests = [
            *embed_requests(texts, run="demo", seed=_SEED),
            *classify_requests(texts[:_CLASSIFIED], labels=_LABELS, run="demo", seed=_SEED),
            *wrong,
        ]
        answered = await session.burst(requests, seen=seen, keep_events=True)
    _check(answered, wrong)
    stdout.print(_latencies(answered))
    stdout.print(
        f"{answered.sent_count} requests, one outcome each:"
        f" {', '.join(f'{count} {kind.value}' for kind, count in answered.kinds().items())};\n"
        f"{answered.elapsed_s():.1f} s in all, {answered.sent_count / answered.elapsed_s():.0f}"
        " outcomes/s, broker and worker on the same cores"
    )
    stdout.print(f"\n[bold]{_QUESTION}[/bold]\nThe nearest of {len(texts)} paragraphs:")
    similarities = answered.vectors("demo", len(texts)) @ asked.vectors("question", 1)[0]
    for index in np.argsort(similarities)[::-1][:_NEAREST]:
        stdout.print(
            Padding(
                plain(f"{similarities[index]:.2f}  {shortened(texts[index], columns=210)}"), (0, 2)
            )
        )


def _wrong_on_purpose() -> list[LoadRequest]:
    """Return one request that must be rejected and one that must expire."""
    nothing = request_value(request_id="wrong-1", request_type=EMBED, data={"texts": []})
    late = request_value(
        request_id="wrong-2",
        request_type=EMBED,
        data={"texts": ["too late"]},
        attributes={"deadlinems": 0},
    )
    return [
        LoadRequest("wrong-1", Lane.HIGH, nothing),
        LoadRequest("wrong-2", Lane.LOW, late),
    ]


def _check(answered: Ledger, wrong: list[LoadRequest]) -> None:
    """Refuse to call it a success when an outcome is not what it must be."""
    expected = dict.fromkeys(answered.answers, OutcomeKind.RESULT)
    kinds = (OutcomeKind.REJECTED, OutcomeKind.EXPIRED)
    expected |= {request.request_id: kind for request, kind in zip(wrong, kinds, strict=True)}
    for request_id, answer in answered.answers.items():
        if answer.kind is not expected[request_id]:
            raise OperatorError(
                f"checking the outcomes: {request_id} ended as {answer.kind.value}, it should end"
                f" as {expected[request_id].value}: {answer.event}"
            )
    if answered.contradictions:
        raise OperatorError(
            f"checking the outcomes: different ones for {answered.contradictions[:5]}"
        )


def _latencies(answered: Ledger) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("priority")
    for title in ("requests", "p50 ms", "p95 ms", "p99 ms", "longest ms"):
        table.add_column(title, justify="right")
    for lane, latency in answered.latencies().items():
        figures = (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms)
        table.add_row(lane.value, str(latency.count), *(f"{figure:.0f}" for figure in figures))
    return table


def _show_how_to_go_on(system: PrivateSystem, stdout: Console) -> None:
    program = "cortex-stream" if which("cortex-stream") else relpath(sys.argv[0])
    stdout.print(
        f"\nstatus page    {system.page}\n"
        f'use it         eval "$({program} stack env --name {_NAME})"\n'
        f'               {program} send embed "hello world" --wait\n'
        f"stop it        kill {system.worker.pid}; {program} stack wipe --name {_NAME}",
        soft_wrap=True,
    )
