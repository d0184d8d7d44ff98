"""`cortex-stream results`: outcomes as they are, or as they come."""

import asyncio
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer

from cortex_stream.cli.outcome_view import kind_of, show_line
from cortex_stream.cli.output import console, show_hint
from cortex_stream.kafka.reader import ReadRecord, Start, TopicReader
from cortex_stream.settings.tree import Settings, load_settings
from schemas.outcomes import OutcomeKind
from topics.names import RESULTS


class From(StrEnum):
    """Where to begin."""

    EARLIEST = "earliest"
    LATEST = "latest"


def results(
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more, until Ctrl-C.")] = False,
    start: Annotated[
        From | None,
        typer.Option("--from", help="By default latest with --follow, earliest without."),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option("--id", help="Only outcomes of this request.")
    ] = None,
    kind: Annotated[
        list[OutcomeKind] | None, typer.Option(help="Only outcomes of this kind; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, as in Kafka.")
    ] = False,
) -> None:
    """Show the outcomes that are in Kafka. Order holds within a partition only.

    A request may appear twice after a fault: the first outcome with an id
    counts, and only a result replaces an earlier expired or dead_letter
    (docs/operations/one-outcome.md).
    """
    begin: Start = "beginning"
    if start is From.LATEST or (start is None and follow):
        begin = "end"
    kinds = frozenset(kind or OutcomeKind)
    asyncio.run(
        _show(
            load_settings(),
            begin=begin,
            follow=follow,
            request_id=request_id,
            kinds=kinds,
            limit=limit,
            as_json=as_json,
        )
    )


async def _show(
    settings: Settings,
    *,
    begin: Start,
    follow: bool,
    request_id: str | None,
    kinds: frozenset[OutcomeKind],
    limit: int | None,
    as_json: bool,
) -> None:
    shown, stdout = 0, console()
    async with TopicReader(settings, [RESULTS], start=begin) as reader:
        if follow and begin == "end":
            show_hint("waiting for outcomes that come from now on, until Ctrl-C")
        records: AsyncIterator[ReadRecord] = reader.follow() if follow else reader.to_end()
        async for record in records:
            outcome: dict[str, Any] = orjson.loads(record.value or b"{}")
            if request_id is not None and outcome["data"]["request_id"] != request_id:
                continue
            if kind_of(outcome) not in kinds:
                continue
            if as_json:
                typer.echo(record.value)
            else:
                show_line(stdout, outcome)
            shown += 1
            if shown == limit:
                return
    if not shown and not as_json:
        stdout.print("no outcomes", style="dim")
