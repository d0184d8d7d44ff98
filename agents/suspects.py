"""Records that may have ended the last worker: counted before they run, few at once, or alone.

Invariants:
    While a suspect runs alone nothing else runs in this process.
    A suspect that was cut off, because its partition moves on, counts as if it had not run.

Owner: the worker's event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from agents.track import Partition, Track
from cortex_stream.delivery.attempts import (
    COMPANY_RECORDS,
    DELIVERIES,
    Trial,
    attempts_key,
    count_record,
    decide_trial,
    read_counts,
)
from cortex_stream.errors import BrokerUnavailable, TopicsMismatch
from cortex_stream.kafka.progress import Standing
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.settings.tree import Settings
from topics.names import ATTEMPTS

Counts = Mapping[bytes, int]
"""How often suspects were delivered, by `attempts_key`."""

_READ_AGAIN_S: Final = 1.0
_LOOK_AGAIN_S: Final = 0.01

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a suspect may run now.

    Attributes:
        deliveries: as counted before this one.
    """

    key: bytes
    trial: Trial
    deliveries: int

    @property
    def count(self) -> OutgoingRecord:
        """What must be durable before the suspect runs."""
        return count_record(self.key, self.trial.value)

    @property
    def uncount(self) -> OutgoingRecord:
        """What takes the count back to where it was."""
        return count_record(self.key, self.deliveries)

    @property
    def recount(self) -> OutgoingRecord:
        """What the count is from then on: gone with the outcome, or that of before if it was given up.

        Before a commit covers it, it may be delivered again, and must be given up again: so that is
        written before the outcome, once reading the record has done no harm.
        """
        return count_record(self.key, 0) if self.runs else self.uncount

    @property
    def runs(self) -> bool:
        """Whether the suspect runs once more."""
        return self.trial.value <= DELIVERIES


class Suspects:
    """The suspects of one assignment."""

    def __init__(
        self, ranges: Mapping[Partition, range], *, busy: Callable[[], bool] = lambda: False
    ) -> None:
        """Begin with nothing in flight.

        Args:
            ranges: the offsets of the suspects.
            busy: tells whether something still runs for a record that has ended.
        """
        self._busy = busy
        self._ranges = {at: offsets for at, offsets in ranges.items() if offsets}
        self._counts: Counts = {}
        self._counts_known = asyncio.Event()
        self._company = asyncio.Semaphore(COMPANY_RECORDS)
        self._turn = asyncio.Lock()
        self._running = 0
        self._nothing_runs = asyncio.Event()
        self._cut_off: dict[bytes, Place] = {}
        self._found = sum(map(len, self._ranges.values()))
        if self._ranges:
            log.warning("suspects.found", partitions=len(self._ranges), records=self._found)

    @property
    def none(self) -> bool:
        """Whether there are none left. Also read by the consumer's thread."""
        return not self._ranges

    @property
    def waiting(self) -> bool:
        """Whether suspects wait because their counts could not be read yet."""
        return bool(self._ranges) and not self._counts_known.is_set()

    def of(self, at: Partition) -> range:
        """Return the offsets of the suspects of a partition; empty once all of them have ended."""
        return self._ranges.get(at, range(0))

    async def learn(self, read: Callable[[], Awaitable[Counts]]) -> None:
        """Read the counts, however long the brokers are away. Suspects wait for them."""
        while True:
            try:
                self._counts = await read()
            except (BrokerUnavailable, TopicsMismatch) as error:
                log.warning("suspects.waiting_for_counts", message=str(error))
                await asyncio.sleep(_READ_AGAIN_S)
            else:
                self._counts_known.set()
                return

    @asynccontextmanager
    async def place(self, source: RecordSource) -> AsyncIterator[Place | None]:
        """Wait until the record may run; give None to one that is no suspect.

        Everything that runs while there are suspects has a place, so that one can be alone.
        """
        if source.offset not in self.of(Partition(source.topic, source.partition)):
            async with self._beside_others():
                yield None
            return
        await self._counts_known.wait()
        key = attempts_key(topic=source.topic, partition=source.partition, offset=source.offset)
        deliveries = self._counts.get(key, 0)
        place = Place(key, decide_trial(deliveries, suspects=self._found), deliveries)
        async with self._in_company() if place.trial is Trial.IN_COMPANY else self._alone():
            self._cut_off.pop(key, None)
            try:
                yield place
            except asyncio.CancelledError:
                self.cut_off(place)
                raise

    def cut_off(self, place: Place) -> None:
        """Note that a suspect may have been counted and does not run, until it has a place again."""
        self._cut_off[place.key] = place

    def ended(self, track: Track) -> None:
        """Note that a record ended: with the last suspect, its partition is like any other."""
        self._pass(track.at, track.position or 0)

    def pass_gaps(
        self, standings: Mapping[tuple[str, int], Standing], ends: Mapping[Partition, int]
    ) -> None:
        """Let suspects end at what is no record: transaction markers, and what was deleted.

        To be called between two polls. Then all that lies before a position has been delivered, or
        never will be, and a highwater seen since the assignment is behind all that had begun before.

        Args:
            standings: of all partitions, while they are assigned.
            ends: of what was delivered.
        """
        for at in list(self._ranges):
            standing = standings.get(at)
            if standing is not None and standing.finished == ends.get(at):
                self._pass(at, standing.position or 0, log_end=standing.highwater)

    def _pass(self, at: Partition, offset: int, *, log_end: int | None = None) -> None:
        """Note that nothing before `offset` is unfinished, or will ever come."""
        suspects = self.of(at)
        last = suspects.stop if log_end is None else min(suspects.stop, log_end)
        if suspects and offset >= last:
            del self._ranges[at]
            if self.none:
                log.info("suspects.ended")

    def take_uncounted(self) -> list[OutgoingRecord]:
        """Return what takes back the counts of those that were cut off, once."""
        records = [place.uncount for place in self._cut_off.values()]
        self._cut_off.clear()
        return records

    @asynccontextmanager
    async def _beside_others(self) -> AsyncIterator[None]:
        async with self._turn:
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._nothing_runs.set()

    @asynccontextmanager
    async def _in_company(self) -> AsyncIterator[None]:
        async with self._company, self._beside_others():
            yield

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with self._turn:  # from here on nothing else begins
            while self._running:
                self._nothing_runs.clear()
                await self._nothing_runs.wait()
            while self._busy():  # noqa: ASYNC110 (a run has no event; those that outlive are rare)
                await asyncio.sleep(_LOOK_AGAIN_S)
            yield


async def read_all_counts(settings: Settings) -> Counts:
    """Return every count that there is. They are few: the end of a record removes its own.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    async with TopicReader(settings, [ATTEMPTS]) as reader:
        return read_counts([(record.key, record.value) async for record in reader.to_end()])
