"""Finds what a replay's requests were answered then, and what they are answered now.

Owner: the event loop that calls it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from cortex_stream.clock import Clock
from cortex_stream.kafka.reader import Position, TopicReader
from cortex_stream.replay.answer import Answer, kind_or_none, read_answer, take_first
from cortex_stream.replay.injection import source_of
from cortex_stream.replay.journal import Standing
from cortex_stream.replay.plan import MAX_AHEAD_MS
from cortex_stream.replay.sample import SmallestIds, Tally
from cortex_stream.replay.selection import Selection, read_asked
from cortex_stream.settings.tree import Settings
from topics.names import REPLAYS, RESULTS

SAMPLE_TEXTS: Final = 20_000
"""How many texts are compared at most: 31 MB of vectors with 384 numbers, then and now."""
_LOOK_AGAIN_S: Final = 0.5
_SPARE_PAIRS: Final = 1_000


@dataclass(slots=True)
class Collection:
    """What was found.

    Attributes:
        replay_id: of the replay.
        pairs: outcome ids of the requests that are compared: of now, and of then.
        tally: how all requests ended now, compared or not.
        first_ms: the earliest timestamp of a request.
        expired_offsets: offsets of the plan whose records are kept no longer.
        too_large: records that the replay had to leave out, since they have no room for our header.
    """

    replay_id: str
    pairs: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    then: dict[str, Answer] = field(default_factory=dict)
    now: dict[str, Answer] = field(default_factory=dict)
    first_ms: int | None = None
    expired_offsets: int = 0
    too_large: int = 0


async def collect(
    settings: Settings,
    standing: Standing,
    *,
    clock: Clock,
    wait_s: float,
    tell: Callable[[int, int], None],
    most_texts: int = SAMPLE_TEXTS,
) -> Collection:
    """Return both sides once each request is answered, or none was for `wait_s`.

    `tell` hears how many outcomes are missing, and of how many.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    found = await _expect(settings, standing, most_texts=most_texts)
    await _wait(settings, standing, found, clock=clock, wait_s=wait_s, tell=tell)
    await _look_back(settings, found)
    return found


async def _expect(settings: Settings, standing: Standing, *, most_texts: int) -> Collection:
    """Read the source again and work out the ids of all outcomes."""
    plan, found = standing.plan, Collection(standing.replay_id)
    selection, sample = Selection.of(plan), SmallestIds(most_texts)
    ranges = {(plan.topic, each.partition): (each.begin, each.end) for each in plan.ranges}
    async with TopicReader(settings, [plan.topic]) as reader:
        begins = await reader.begins()
        found.expired_offsets = sum(
            max(0, min(begins[place], end) - begin) for place, (begin, end) in ranges.items()
        )
        async for record in reader.between(ranges):
            if not selection.picks_time(record.timestamp_ms):
                continue
            asked = read_asked(record.value, source_of(record, settings), limits=settings.limits)
            if not selection.picks(asked):
                continue
            if not selection.fits(record.key, record.value, record.headers):
                found.too_large += 1
                continue
            identity = asked.outcome_id(standing.replay_id)
            found.tally.expect(identity)
            sample.add(identity, asked.texts)
            found.pairs[identity] = asked.outcome_id(None)
            found.first_ms = min(record.timestamp_ms, found.first_ms or record.timestamp_ms)
            if len(found.pairs) > 2 * len(sample) + _SPARE_PAIRS:
                found.pairs = _sampled(found.pairs, sample)
    found.pairs = _sampled(found.pairs, sample)
    return found


async def _wait(
    settings: Settings,
    standing: Standing,
    found: Collection,
    *,
    clock: Clock,
    wait_s: float,
    tell: Callable[[int, int], None],
) -> None:
    topic = RESULTS if standing.plan.publish_to == "results" else REPLAYS
    since_ms = standing.plan.started_unix_ms - MAX_AHEAD_MS  # the brokers' clock counts there
    expected, heard_s = found.tally.expected(), clock.monotonic_s()
    async with TopicReader(
        settings, [topic], start=await _since(settings, topic, since_ms)
    ) as reader:
        while True:
            heard = False
            async for record in reader.to_end():
                heard = _hear(found, orjson.loads(record.value or b"{}")) or heard
            now_s = clock.monotonic_s()
            missing = found.tally.missing()
            tell(missing, expected)
            heard_s = now_s if heard else heard_s
            if not missing or now_s - heard_s >= wait_s:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)


def _hear(found: Collection, outcome: Mapping[str, Any]) -> bool:
    """Take in an outcome if it is one of this replay's; tell whether it is."""
    kind = kind_or_none(outcome)
    if kind is None or outcome["data"]["replay_id"] != found.replay_id:
        return False
    identity, error = outcome["id"], outcome["data"]["error"]
    found.tally.see(identity, kind, None if error is None else error["code"])
    if identity in found.pairs:
        take_first(found.now, identity, read_answer(outcome, kind))
    return True


async def _look_back(settings: Settings, found: Collection) -> None:
    """Find what the compared requests were answered before."""
    wanted = set(found.pairs.values())
    since_ms = max(0, (found.first_ms or 0) - MAX_AHEAD_MS)
    start = await _since(settings, RESULTS, since_ms)
    async with TopicReader(settings, [RESULTS], start=start) as reader:
        async for record in reader.to_end():
            outcome = orjson.loads(record.value or b"{}")
            kind = kind_or_none(outcome)
            if kind is not None and outcome["id"] in wanted:
                take_first(found.then, outcome["id"], read_answer(outcome, kind))


async def _since(settings: Settings, topic: str, unix_ms: int) -> dict[Position, int]:
    """Return from where a topic in the brokers' time has to be read."""
    async with TopicReader(settings, [topic], start="end") as reader:
        ends = await reader.ends()  # first: what is written meanwhile lies behind them
        first = await reader.first_since(max(0, unix_ms))
    return {place: first[place][0] if place in first else end for place, end in ends.items()}


def _sampled(pairs: Mapping[str, str], sample: SmallestIds) -> dict[str, str]:
    return {now: then for now, then in pairs.items() if now in sample}
