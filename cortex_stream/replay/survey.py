"""Looks at a topic before anything is put back: where the bounds lie, and what a plan would pick."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cortex_stream.kafka.reader import TopicReader
from cortex_stream.replay.injection import source_of
from cortex_stream.replay.plan import (
    MAX_AHEAD_MS,
    Bound,
    Found,
    Moment,
    Partition,
    ReplayPlan,
    decide_ranges,
    expired_records,
    parse_bound,
)
from cortex_stream.replay.selection import Selection, read_asked
from cortex_stream.settings.tree import Settings

_MOST_TYPES: Final = 50  # clients choose them


@dataclass(frozen=True, slots=True)
class Survey:
    """What a plan would do.

    Attributes:
        read: records between the plan's offsets.
        picked: those that would be put back.
        too_large: those that would be, had they room for our header.
        picked_bytes: their values.
        types: how many of them ask for what.
    """

    read: int
    picked: int
    too_large: int
    picked_bytes: int
    types: Mapping[str, int]


async def look_at(settings: Settings, topic: str, begin: Bound, end: Bound) -> dict[int, Partition]:
    """Return what the broker says about each partition of `topic`, for `plan.decide_ranges`.

    Raises:
        TopicsMismatch: there is no such topic; BrokerUnavailable: no broker answers.
    """
    async with TopicReader(settings, [topic], start="end") as reader:
        begins, ends = await reader.begins(), await reader.ends()
        first = await reader.first_since(begin.unix_ms) if isinstance(begin, Moment) else {}
        last = (
            await reader.first_since(end.unix_ms + MAX_AHEAD_MS) if isinstance(end, Moment) else {}
        )
    return {
        place[1]: Partition(
            begins=begins[place],
            ends=offset,
            first=Found(*first[place]) if place in first else None,
            last=Found(*last[place]) if place in last else None,
        )
        for place, offset in ends.items()
    }


async def with_ranges(
    settings: Settings, draft: ReplayPlan, *, say: Callable[[str], None]
) -> ReplayPlan:
    """Return the plan with the offsets that its bounds mean now; `say` hears what is missing.

    Raises:
        OperatorError: the bounds cannot be read, or name a partition that there is not.
        TopicsMismatch: there is no such topic; BrokerUnavailable: no broker answers.
    """
    begin = parse_bound(draft.asked_from, option="--from")
    end = parse_bound(draft.asked_to, option="--to")
    partitions = await look_at(settings, draft.topic, begin, end)
    ranges = decide_ranges(begin, end, partitions, now_unix_ms=draft.started_unix_ms)
    if expired := expired_records(begin, partitions):
        say(f"{expired} of the offsets asked for are kept no longer.")
    return draft.model_copy(
        update={
            "ranges": ranges,
            "since_ms": begin.unix_ms if isinstance(begin, Moment) else None,
            "until_ms": end.unix_ms if isinstance(end, Moment) else None,
        }
    )


async def survey(settings: Settings, plan: ReplayPlan) -> Survey:
    """Read everything between the plan's offsets and say what would be put back; changes nothing.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    selection = Selection.of(plan)
    ranges = {(plan.topic, each.partition): (each.begin, each.end) for each in plan.ranges}
    read = picked = too_large = picked_bytes = 0
    types: Counter[str] = Counter()
    async with TopicReader(settings, [plan.topic]) as reader:
        async for record in reader.between(ranges):
            read += 1
            if not selection.picks_time(record.timestamp_ms):
                continue
            asked = read_asked(record.value, source_of(record, settings), limits=settings.limits)
            if not selection.picks(asked):
                continue
            if not selection.fits(record.key, record.value, record.headers):
                too_large += 1
            else:
                picked += 1
                picked_bytes += len(record.value or b"")
                name = asked.type or "unreadable"
                types[name if name in types or len(types) < _MOST_TYPES else "other"] += 1
    return Survey(read, picked, too_large, picked_bytes, types)
