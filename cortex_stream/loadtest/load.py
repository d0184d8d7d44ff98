"""Requests in numbers, and the open loop that sends them.

The driver never waits for an outcome before it sends the next request: a slow system meets the
same load as a fast one, as it would in life.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

from cortex_stream.clock import Clock
from cortex_stream.errors import CortexError
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.record import OutgoingRecord
from schemas.priority import Lane
from schemas.requests import CLASSIFY, EMBED
from topics.names import request_topic

MIX: Final[Mapping[Lane, float]] = {
    Lane.CRITICAL: 0.1,
    Lane.HIGH: 0.2,
    Lane.MEDIUM: 0.3,
    Lane.LOW: 0.4,
}
"""Shares of the four priorities, as a busy platform has them."""

_FILL_RECORDS: Final = 500  # one call's worth: the producer forms batches of 256 KiB out of them
_TICK_S: Final = 0.01  # requests due within a tick are sent together: a timer each costs more


class Sender(Protocol):
    """Produces records durably; `kafka.producer.KafkaProducer` is one."""

    async def send(self, *records: OutgoingRecord) -> None:
        """Return once all of them are durable."""
        ...


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One request on its way to the topic of its lane."""

    request_id: str
    lane: Lane
    value: bytes

    @property
    def record(self) -> OutgoingRecord:
        """The record to produce."""
        return OutgoingRecord(request_topic(self.lane), self.request_id.encode(), self.value)


def request_value(
    *,
    request_id: str,
    request_type: str,
    data: Mapping[str, object],
    attributes: Mapping[str, object] | None = None,
) -> bytes:
    """Return a request CloudEvent in structured JSON; attributes that are None are left out."""
    given = {name: value for name, value in (attributes or {}).items() if value is not None}
    return orjson.dumps(
        {"specversion": "1.0", "id": request_id, "type": request_type, **given, "data": data}
    )


def embed_requests(
    texts: Sequence[str], *, run: str, seed: int, mix: Mapping[Lane, float] = MIX
) -> list[LoadRequest]:
    """Return one embed request per text, in order; lanes are drawn from `mix` by `seed`.

    Ids are `<run>-<index>`, so that a text's answer is found again.
    """
    lanes = _lanes(len(texts), seed=seed, mix=mix)
    return [
        _request(f"{run}-{index}", lane, EMBED, {"texts": [text]}, run)
        for index, (text, lane) in enumerate(zip(texts, lanes, strict=True))
    ]


def classify_requests(
    texts: Sequence[str],
    *,
    labels: Sequence[str],
    run: str,
    seed: int,
    mix: Mapping[Lane, float] = MIX,
) -> list[LoadRequest]:
    """Return one classify request per text, as `embed_requests` does."""
    lanes = _lanes(len(texts), seed=seed, mix=mix)
    return [
        _request(f"{run}-c{index}", lane, CLASSIFY, {"texts": [text], "labels": [*labels]}, run)
        for index, (text, lane) in enumerate(zip(texts, lanes, strict=True))
    ]


async def fill(
    sender: Sender, requests: Sequence[LoadRequest], *, ledger: Ledger, clock: Clock
) -> None:
    """Send everything as fast as Kafka takes it; return when all of it is durable."""
    for start in range(0, len(requests), _FILL_RECORDS):
        await _send(sender, requests[start : start + _FILL_RECORDS], ledger=ledger, clock=clock)


async def drive(
    sender: Sender,
    requests: Iterable[LoadRequest],
    *,
    rate_per_s: float,
    seed: int,
    ledger: Ledger,
    clock: Clock,
) -> None:
    """Send at random moments (a Poisson process) that depend on `seed` alone, never on answers.

    Requests that became due while the loop was busy follow at once: the load never sags.
    """
    gaps = random.Random(seed)  # noqa: S311 (a load, not a secret)
    due_s = clock.monotonic_s()
    batch: list[LoadRequest] = []
    try:
        async with asyncio.TaskGroup() as sending:
            for request in requests:
                due_s += gaps.expovariate(rate_per_s)
                wait_s = due_s - clock.monotonic_s()
                if wait_s > _TICK_S:
                    if batch:
                        sending.create_task(_send(sender, batch, ledger=ledger, clock=clock))
                        batch = []
                    await asyncio.sleep(wait_s)
                batch.append(request)
            await _send(sender, batch, ledger=ledger, clock=clock)
    except* CortexError as failed:
        raise failed.exceptions[0] from failed


async def _send(
    sender: Sender, requests: Sequence[LoadRequest], *, ledger: Ledger, clock: Clock
) -> None:
    now_ms = clock.unix_ms()
    for request in requests:
        ledger.sent(request.request_id, lane=request.lane, at_ms=now_ms)
    await sender.send(*(request.record for request in requests))


def _lanes(count: int, *, seed: int, mix: Mapping[Lane, float]) -> list[Lane]:
    draw = random.Random(seed)  # noqa: S311 (as above)
    return draw.choices(list(mix), weights=list(mix.values()), k=count)


def _request(
    request_id: str, lane: Lane, request_type: str, data: Mapping[str, object], run: str
) -> LoadRequest:
    value = request_value(
        request_id=request_id,
        request_type=request_type,
        data=data,
        attributes={"source": f"//cortex-stream/loadtest/{run}"},
    )
    return LoadRequest(request_id, lane, value)
