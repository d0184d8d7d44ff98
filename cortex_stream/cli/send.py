"""`cortex-stream send`: one request, and its outcome if asked for."""

import asyncio
import datetime as dt
import sys
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Final

import orjson
import typer

from cortex_stream.cli.outcome_view import SHORT_TYPES, kind_of, show_outcome
from cortex_stream.cli.output import console, print_json
from cortex_stream.clock import SystemClock
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.loadtest.load import request_value
from cortex_stream.record import OutgoingRecord
from cortex_stream.settings.tree import Settings, load_settings
from schemas.contract import MAX_SAFE_INTEGER
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane, Priority
from topics.names import RESULTS, request_topic

EXIT_CODES: Final = {
    OutcomeKind.RESULT: 0,
    OutcomeKind.REJECTED: 3,
    OutcomeKind.EXPIRED: 4,
    OutcomeKind.DEAD_LETTER: 5,
}
TIMED_OUT: Final = 6
_SOURCE: Final = "//cortex-stream/cli"


def send(
    request_type: Annotated[
        str, typer.Argument(metavar="TYPE", help="`embed`, `classify`, or a full request type.")
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="`-` reads lines from stdin.")
    ] = None,
    *,
    text: Annotated[list[str] | None, typer.Option(help="A text; may be repeated.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label to classify under; may be repeated.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The request's `data` as JSON; the other options add to it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="`name` or `name@version`.")] = None,
    priority: Annotated[Priority, typer.Option(help="Decides the topic.")] = Priority.MEDIUM,
    subject: Annotated[
        str | None, typer.Option(help="What it is about; an embedding with one goes to Lake.")
    ] = None,
    deadline_ms: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_SAFE_INTEGER, help="After so long the answer is of no use."),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option("--id", help="The request's id; by default a new one.")
    ] = None,
    source: Annotated[str, typer.Option(help="Who asks.")] = _SOURCE,
    tenant: Annotated[str | None, typer.Option(help="For whom; by default the source.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome and show it.")] = False,
    timeout_s: Annotated[float, typer.Option(min=0, help="How long --wait waits.")] = 30.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome (or the request) as JSON.")
    ] = False,
) -> None:
    """Send a request; return once every in-sync replica has it.

    Exit codes: 0 sent; with --wait: 0 result, 3 rejected, 4 expired,
    5 dead letter, 6 no outcome in time. 1: not sent. 2: wrong usage.

    cortex-stream send embed "hello world" --wait

    cortex-stream send classify --wait --label praise --label complaint TEXT
    """
    settings = load_settings()
    payload = _payload(data, _all_texts([*(texts or ()), *(text or ())]), label, model)
    request_id = request_id or uuid.uuid4().hex
    value = request_value(
        request_id=request_id,
        request_type=SHORT_TYPES.get(request_type, request_type),
        data=payload,
        attributes={
            "source": source,
            "time": _rfc3339(SystemClock().unix_ms()),
            "subject": subject,
            "deadlinems": deadline_ms,
            "tenant": tenant,
        },
    )
    record = OutgoingRecord(request_topic(Lane(priority.value)), request_id.encode(), value)
    outcome = asyncio.run(_send(settings, record, request_id, timeout_s if wait else None))
    if not wait:
        if as_json:
            print_json(orjson.loads(value))
        else:
            console().print(
                f"sent {request_id} to {settings.topic(record.topic)}", markup=False, soft_wrap=True
            )
        return
    if outcome is None:
        typer.secho(
            f"error: no outcome of {request_id} within {timeout_s:g} s; the request is in Kafka and"
            " will be answered\nrepair: start a worker (cortex-stream worker), then look:"
            f" cortex-stream results --id {request_id}",
            fg="red",
            err=True,
        )
        raise typer.Exit(TIMED_OUT)
    if as_json:
        print_json(outcome)
    else:
        inputs = payload.get("texts")
        show_outcome(console(), outcome, texts=inputs if isinstance(inputs, list) else [])
    raise typer.Exit(EXIT_CODES[kind_of(outcome)])


async def _send(
    settings: Settings, record: OutgoingRecord, request_id: str, timeout_s: float | None
) -> dict[str, Any] | None:
    """Produce the record; return the outcome, or None when none was awaited or none came."""
    if timeout_s is None:
        await _produce(settings, record)
        return None
    # Opened first: it fixes the ends of the partitions, so that no outcome can be missed.
    async with TopicReader(settings, [RESULTS], start="end") as results:
        await _produce(settings, record)
        try:
            async with asyncio.timeout(timeout_s):
                async for found in results.follow():
                    outcome: dict[str, Any] = orjson.loads(found.value or b"{}")
                    if outcome.get("subject") == request_id:
                        return outcome
        except TimeoutError:
            return None
    return None


async def _produce(settings: Settings, record: OutgoingRecord) -> None:
    async with KafkaProducer(settings) as producer:
        await producer.send(record)


def _payload(
    data: str | None, texts: Sequence[str], labels: Sequence[str] | None, model: str | None
) -> dict[str, Any]:
    try:
        payload = orjson.loads(data) if data is not None else {}
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint="--data") from error
    if not isinstance(payload, dict):
        raise typer.BadParameter("is not a JSON object", param_hint="--data")
    given = {"texts": list(texts), "labels": list(labels or ()), "model": model}
    payload |= {name: value for name, value in given.items() if value}
    if not payload:
        raise typer.BadParameter("give a text, or --data", param_hint="TEXT")
    return payload


def _all_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts with the lines of stdin in place of `-`; blank lines are left out."""
    lines = []
    for text in texts:
        if text == "-":
            lines += [line.rstrip("\n") for line in sys.stdin if line.strip()]
        else:
            lines.append(text)
    return lines


def _rfc3339(unix_ms: int) -> str:
    instant = dt.datetime.fromtimestamp(unix_ms / 1000, tz=dt.UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
