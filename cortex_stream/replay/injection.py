"""Puts the records of a plan back on the replay lane, and remembers how far it is.

Invariants:
    What is remembered as read has been put back durably, or was not picked. After a kill some
    records are put back again; their outcomes have the ids of the first ones.
    Neither the live group's offsets nor a client's topic is written to.

Owner: the event loop that calls `run`.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from cortex_stream.clock import Clock
from cortex_stream.errors import BrokerUnavailable, OperatorError
from cortex_stream.kafka.bookmarks import Bookmark, Bookmarks, BookmarkWriter
from cortex_stream.kafka.producer import KafkaProducer
from cortex_stream.kafka.reader import Position, ReadRecord, TopicReader
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.replay.journal import (
    Mark,
    Standing,
    group_of,
    read_standing,
    write_state,
)
from cortex_stream.replay.pace import Pace, chunk_records
from cortex_stream.replay.plan import ReplayPlan
from cortex_stream.replay.selection import Selection, read_asked
from cortex_stream.settings.tree import Settings
from cortex_stream.task_scope import TaskScope
from schemas.handovers import HANDOVER, Handover, Reinjection
from schemas.priority import Lane
from topics.names import VALIDATION, request_topic

MOST_AHEAD_RECORDS: Final = 5_000
"""How many records may wait on the replay lane: five times what a worker takes in at once, so that
it is never idle, and seconds of work, so that none waits until Kafka forgets it."""
_CHUNK_RECORDS: Final = 500
_CHUNK_BYTES: Final = 4 << 20
_FLUSH_S: Final = 0.5
_REMEMBER_S: Final = 0.25  # what a kill repeats, and how soon a cancellation is seen
_RATE_OVER_S: Final = 1.0
_LOOK_AGAIN_S: Final = 1.0  # each look opens connections, and a second is far from 5000 records
_LAST_WRITE_S: Final = 3.0


class Cancelled(OperatorError):
    """Somebody has cancelled the replay."""


class Injection:
    """One run of a replay: the first, or one that goes on where an earlier one stopped.

    Attributes:
        undecodable: records that this run had to leave out, since no client of ours can read them.
        too_large: records that it had to leave out, since they have no room for our header.
    """

    def __init__(
        self,
        settings: Settings,
        standing: Standing,
        *,
        clock: Clock,
        tell: Callable[[Standing], None],
    ) -> None:
        """Go on from `standing`; `tell` hears again and again how it stands."""
        self._settings = settings
        self._id = standing.replay_id
        self._plan: ReplayPlan = standing.plan
        self._clock = clock
        self._tell = tell
        self._selection = Selection.of(self._plan)
        self._pace = Pace(self._plan.rate_per_s)
        self._most_records = chunk_records(self._plan.rate_per_s, most=_CHUNK_RECORDS)
        self._next = {
            each.partition: standing.next_offsets.get(each.partition, each.begin)
            for each in self._plan.ranges
        }
        self._records = {
            each.partition: standing.records.get(each.partition, 0) for each in self._plan.ranges
        }
        self._before = (clock.monotonic_s(), sum(self._records.values()))
        self._per_s = 0.0
        self._room = 0
        self.undecodable = 0
        self.too_large = 0

    async def run(self) -> Standing:
        """Put back what is left of the plan; return how it stands then: finished.

        However it ends, what has been put back is remembered, unless the process is killed.

        Raises:
            Cancelled: somebody said so.
            OperatorError: the topic no longer has what the plan names, or Kafka forgot the plan.
            BrokerUnavailable: no broker answers.
        """
        positions = [(self._plan.topic, each.partition) for each in self._plan.ranges]
        async with BookmarkWriter(self._settings, group_of(self._id), positions) as writer:
            try:
                async with TaskScope() as scope:
                    injecting = scope.start(self._inject(), name="put records back")
                    watching = scope.start(self._remember(writer), name="remember and watch")
                    await asyncio.wait({injecting, watching}, return_when=asyncio.FIRST_COMPLETED)
            except BaseException:
                with suppress(BrokerUnavailable, TimeoutError):
                    async with asyncio.timeout(_LAST_WRITE_S):
                        await self._write(writer)
                raise
            await self._write(writer)
        if not injecting.cancelled():
            await write_state(self._settings, self._id, self._plan, "finished")
            return self._standing(0.0)
        raise Cancelled(f"replay {self._id} was cancelled")

    async def _inject(self) -> None:
        ranges = {
            (self._plan.topic, each.partition): (self._next[each.partition], each.end)
            for each in self._plan.ranges
        }
        async with TopicReader(self._settings, [self._plan.topic]) as reader:
            begins, ends = await reader.begins(), await reader.ends()
            for place, (begin, end) in ranges.items():
                _check_kept(place, begin, end, begins=begins)
                _check_there(place, end, ends=ends)
            try:
                async with KafkaProducer(self._settings) as producer:
                    await self._put_back(reader, ranges, producer)
            finally:
                self.undecodable = reader.undecodable
        self._next = {each.partition: each.end for each in self._plan.ranges}

    async def _put_back(
        self,
        reader: TopicReader,
        ranges: Mapping[Position, tuple[int, int]],
        producer: KafkaProducer,
    ) -> None:
        """Read to the ends; every chunk is durable before the next is read.

        Raises:
            OperatorError: something was deleted before it was read.
        """
        chunk: list[ReadRecord] = []
        read_to = dict(self._next)
        size_bytes, flushed_s = 0, self._clock.monotonic_s()
        async for record in reader.between(ranges):
            if record.offset > read_to.get(record.partition, record.offset):  # rare: look why
                place = (record.topic, record.partition)
                begins = await reader.begins()
                _check_kept(place, read_to[record.partition], record.offset, begins=begins)
            read_to[record.partition] = record.offset + 1
            if self._picks(record):
                chunk.append(record)
                size_bytes += len(record.value or b"")
            due = self._clock.monotonic_s() - flushed_s >= _FLUSH_S
            if len(chunk) >= self._most_records or size_bytes >= _CHUNK_BYTES or due:
                await self._flush(chunk, read_to, producer)
                chunk, size_bytes, flushed_s = [], 0, self._clock.monotonic_s()
        left = {place: end for place, (_, end) in ranges.items() if read_to[place[1]] < end}
        begins = await reader.begins() if left else {}  # now: the flush may wait for long
        await self._flush(chunk, read_to, producer)
        for place, end in left.items():  # no record, as that of a transaction's end; or deleted
            _check_kept(place, read_to[place[1]], end, begins=begins)

    async def _flush(
        self, chunk: list[ReadRecord], read_to: dict[int, int], producer: KafkaProducer
    ) -> None:
        if chunk:
            await self._until_room(len(chunk))
            delay_s = self._pace.delay_s(len(chunk), now_s=self._clock.monotonic_s())
            await asyncio.sleep(delay_s)
            await producer.send(
                *(put_back(each, self._settings, self._id, self._plan) for each in chunk)
            )
        for record in chunk:
            self._records[record.partition] += 1
        self._next.update(read_to)

    async def _until_room(self, records: int) -> None:
        """Wait while the replay lane is full; nothing else of Kafka's is bounded by us."""
        while self._room < records:
            waiting = await waiting_records(self._settings)
            self._room = MOST_AHEAD_RECORDS - waiting
            if self._room < records:
                await asyncio.sleep(_LOOK_AGAIN_S)
        self._room -= records

    def _picks(self, record: ReadRecord) -> bool:
        if not self._selection.picks_time(record.timestamp_ms):
            return False
        if self._selection.reads_values:
            source = source_of(record, self._settings)
            asked = read_asked(record.value, source, limits=self._settings.limits)
            if not self._selection.picks(asked):
                return False
        fits = self._selection.fits(record.key, record.value, record.headers)
        self.too_large += not fits
        return fits

    async def _remember(self, writer: BookmarkWriter) -> None:
        """Write the progress again and again; return once somebody has cancelled."""
        async with Bookmarks(self._settings) as bookmarks:
            while True:
                standing = read_standing(self._id, await bookmarks.read(group_of(self._id)))
                if standing is None:
                    raise OperatorError(
                        f"replay {self._id}: Kafka keeps its plan no longer"
                        " (offsets.retention.minutes, or its group was deleted)",
                        repair="begin anew, with another --id and --from where this one stopped",
                    )
                if standing.plan.state == "cancelled":
                    return
                self._tell(await self._write(writer))
                await asyncio.sleep(_REMEMBER_S)

    async def _write(self, writer: BookmarkWriter) -> Standing:
        now_s, records = self._clock.monotonic_s(), sum(self._records.values())
        before_s, before = self._before
        if now_s - before_s >= _RATE_OVER_S:
            self._per_s = (records - before) / (now_s - before_s)
            self._before = (now_s, records)
        standing = self._standing(self._per_s)
        await writer.write(
            {
                (self._plan.topic, part): Bookmark(
                    offset,
                    Mark(
                        records=standing.records[part],
                        at_unix_ms=standing.at_unix_ms,
                        per_s=round(standing.per_s, 1),
                    ).model_dump_json(),
                )
                for part, offset in standing.next_offsets.items()
            }
        )
        return standing

    def _standing(self, per_s: float) -> Standing:
        return Standing(
            self._id,
            self._plan,
            dict(self._next),
            dict(self._records),
            self._clock.unix_ms(),
            per_s,
        )


def put_back(
    record: ReadRecord, settings: Settings, replay_id: str, plan: ReplayPlan
) -> OutgoingRecord:
    """Return the record with which a worker answers a request again, beside the live ones."""
    handover = Handover(
        version=1,
        stage=VALIDATION,
        topic=settings.topic(record.topic),
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        attempt=1,
        spent_ms=0.0,
        left_ms=None,  # nobody waits for it
        progress=None,
        reinjection=Reinjection(
            replay_id=replay_id, publish_to=plan.publish_to, model=plan.model, redrives=0
        ),
    )
    return OutgoingRecord(
        request_topic(Lane.REPLAY),
        record.key,
        record.value,
        (*record.headers, (HANDOVER, handover.model_dump_json().encode())),
    )


def source_of(record: ReadRecord, settings: Settings) -> RecordSource:
    """Return a record's coordinates and headers as the engine would see them."""
    return RecordSource(
        topic=settings.topic(record.topic),
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        received_s=0.0,
        key=record.key,
        headers=record.headers,
    )


async def waiting_records(settings: Settings) -> int:
    """Return how many records wait on the replay lane for the workers that serve it.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    workers = "cortex-stream"
    async with Bookmarks(settings) as bookmarks:
        groups = await bookmarks.groups(workers)
        committed = [
            await bookmarks.read(group)
            for group in groups
            if group == workers or group.startswith(f"{workers}.")
        ]
    async with TopicReader(settings, [request_topic(Lane.REPLAY)], start="end") as reader:
        begins, ends = await reader.begins(), await reader.ends()
    # Groups that do not serve the lane never commit there.
    return min(lag_records(begins, ends, each) for each in committed or [{}])


def lag_records(
    begins: Mapping[Position, int],
    ends: Mapping[Position, int],
    committed: Mapping[Position, Bookmark],
) -> int:
    """Return how many of the records between `begins` and `ends` lie behind what was committed."""
    return sum(
        max(0, end - max(begins[at], committed[at].offset if at in committed else 0))
        for at, end in ends.items()
    )


def _check_kept(place: Position, offset: int, end: int, *, begins: Mapping[Position, int]) -> None:
    """Raise an OperatorError if records from `offset` to before `end` have been deleted."""
    if (kept_from := min(begins[place], end)) > offset:
        raise OperatorError(
            f"reading {place[0]}: offsets {offset} to {kept_from - 1} of partition {place[1]}"
            " are kept no longer",
            repair="begin another replay of what is left: --from earliest",
        )


def _check_there(place: Position, end: int, *, ends: Mapping[Position, int]) -> None:
    if end > ends.get(place, 0):
        raise OperatorError(
            f"reading {place[0]}: partition {place[1]} ends at {ends.get(place, 0)}, the plan at"
            f" {end}: the topic is another one than when the replay began"
        )
