"""Ways to make the worker wrong. The checker must notice each, or its verdict is worth nothing."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

import agents.track
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.record import OutgoingRecord
from cortex_stream.scheduling.fair_queue import WEIGHTS, FairQueue
from schemas.priority import Lane
from topics.names import DEAD_LETTERS, RESULTS

_LATE_S = 2.0


def acknowledge_early() -> None:
    """Finish a record as soon as its outcome is known; make it durable two seconds later."""
    send: Any = KafkaProducer.send
    running: set[asyncio.Task[Any]] = set()

    async def later(*arguments: Any) -> None:
        await asyncio.sleep(_LATE_S)
        await send(*arguments)

    async def at_once(*arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        task = loop.create_task(later(*arguments))
        running.add(task)
        task.add_done_callback(running.discard)
        done = loop.create_future()
        done.set_result(None)
        return done

    _put(KafkaProducer, "send", at_once)
    _put(KafkaProducer, "post", at_once)


def commit_past_unfinished() -> None:
    """Commit what was delivered, finished or not."""

    def positions(tracks: Any) -> dict[Any, int]:
        return {at: track.end for at, track in tracks._tracks.items() if track.end is not None}

    _put(agents.track.Tracks, "positions", positions)


def drop_dead_letters() -> None:
    """Publish the outcome of a failure without the dead letter."""
    _change_sent(lambda records: [r for r in records if r.topic != DEAD_LETTERS])


def lose_every_100th() -> None:
    """Forget one outcome in a hundred."""
    numbers = itertools.count(1)
    _change_sent(lambda records: [r for r in records if r.topic != RESULTS or next(numbers) % 100])


def answer_twice_differently() -> None:
    """Say every twentieth outcome twice, in two ways."""
    numbers = itertools.count(1)

    def doubled(records: list[OutgoingRecord]) -> list[OutgoingRecord]:
        return [
            each
            for record in records
            for each in (
                (record, _altered(record))
                if record.topic == RESULTS and next(numbers) % 20 == 0
                else (record,)
            )
        ]

    _change_sent(doubled)


def swap_priorities() -> None:
    """Serve the least urgent lane that has work, and no other beside it."""
    _serve_strictly(tuple(reversed(WEIGHTS)))


def starve_low_ones() -> None:
    """Serve the most urgent lane that has work, and no other beside it."""
    _serve_strictly(tuple(WEIGHTS))


def _serve_strictly(lanes: Sequence[Lane]) -> None:
    usual: Any = FairQueue.pop_head

    def pop_head(queue: Any) -> Any:
        lane = next((each for each in lanes if queue.depth(each)), None)
        if lane is None:
            return usual(queue)
        row = queue._lanes[lane].head()
        queue._remove(row)
        return row

    _put(FairQueue, "pop_head", pop_head)
    _put(FairQueue, "_may_ride", lambda *_: False)


def _altered(record: OutgoingRecord) -> OutgoingRecord:
    event = orjson.loads(record.value or b"")
    event["data"]["output"] = {"vectors": ["something else"]}
    return replace(record, value=orjson.dumps(event))


def _change_sent(change: Callable[[list[OutgoingRecord]], list[OutgoingRecord]]) -> None:
    for name in ("send", "post"):
        _put(KafkaProducer, name, _changing(getattr(KafkaProducer, name), change))


def _changing(
    send: Callable[..., Any], change: Callable[[list[OutgoingRecord]], list[OutgoingRecord]]
) -> Callable[..., Any]:
    async def changed(producer: KafkaProducer, *records: OutgoingRecord) -> Any:
        sent = change(list(records))
        if sent:
            return await send(producer, *sent)
        nothing = asyncio.get_running_loop().create_future()
        nothing.set_result(None)
        return nothing

    return changed


def _put(owner: type, name: str, function: Callable[..., Any]) -> None:
    """Replace a method; one that is not there any more is an error."""
    getattr(owner, name)
    setattr(owner, name, function)


MUTATIONS: Mapping[str, Callable[[], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        acknowledge_early,
        commit_past_unfinished,
        drop_dead_letters,
        lose_every_100th,
        answer_twice_differently,
        swap_priorities,
        starve_low_ones,
    )
}
