"""Waits for the answers of a replay and writes what they changed, for people and for programs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from cortex_stream.cli.output import console
from cortex_stream.clock import SystemClock
from cortex_stream.replay.collection import collect
from cortex_stream.replay.journal import Standing
from cortex_stream.replay.report import Report, make_report
from cortex_stream.settings.tree import Settings

WAIT_S: Final = 300.0
_LINE_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a report is to be made.

    Attributes:
        folder: takes `<id>.html` and `.json`.
        wait_s: how long to wait for the next outcome.
        gate: what each figure must be for the name to mean the new version; None: no cut-over.
    """

    folder: Path = Path()
    wait_s: float = WAIT_S
    gate: Mapping[str, float] | None = None


async def write_report(settings: Settings, standing: Standing, wanted: Wanted) -> Report:
    """Write the report once all is answered, print its gist, and return it.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    stdout, clock = console(), SystemClock()
    said_s = clock.monotonic_s()

    def tell(missing: int, of: int) -> None:
        nonlocal said_s
        if missing and clock.monotonic_s() - said_s >= _LINE_EVERY_S:
            said_s = clock.monotonic_s()
            stdout.print(f"waiting for {missing} of {of} outcomes", style="dim")

    found = await collect(settings, standing, clock=clock, wait_s=wanted.wait_s, tell=tell)
    report = make_report(standing, found)
    if wanted.gate is not None:
        report = report.judged(wanted.gate)
    _show(stdout, report)
    stdout.print(f"Written: {escape(_write(report, wanted.folder))} and .json", soft_wrap=True)
    return report


def _write(report: Report, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{report.replay_id}.html"
    page.write_text(report.to_html(), encoding="utf-8")
    page.with_suffix(".json").write_bytes(report.to_json())
    return str(page)


def _show(stdout: Console, report: Report) -> None:
    ended = ", ".join(f"{count} {kind.value}" for kind, count in report.outcomes.items() if count)
    stdout.print(f"{report.records} requests: {ended or 'none ended'}, {report.missing} missing")
    if report.embeddings is not None and report.embeddings.cosines is not None:
        found = report.embeddings.cosines
        stdout.print(f"cosines: least {found.least:.4f}, p01 {found.p01:.4f}, p50 {found.p50:.4f}")
    if report.embeddings is not None and report.embeddings.overlap is not None:
        overlap = report.embeddings.overlap
        stdout.print(f"same {overlap.neighbours} nearest neighbours: {overlap.mean:.1%}")
    if report.labels is not None:
        stdout.print(
            f"best label changed: {report.labels.share:.2%} of {report.labels.texts} texts"
        )
    for check in report.gate:
        stdout.print(f"gate: {check}: {'holds' if check.passed else 'fails'}")
