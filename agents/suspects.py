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
from cortex_stream.kafka.reader import TopicReader
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.settings.tree import Settings
from topics.names import ATTEMPTS

Counts = Mapping[bytes, int]
"""How often suspects were delivered, by `attempts_key`."""

_READ_AGAIN_S: Final = 1.0

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

    def __init__(self, ranges: Mapping[Partition, range]) -> None:
        """Begin with nothing in flight; `ranges` are the offsets of the suspects."""
        self._ranges = {at: offsets for at, offsets in ranges.items() if offsets}
        self._counts: Counts = {}
        self._counts_known = asyncio.Event()
        self._company = asyncio.Semaphore(COMPANY_RECORDS)
        self._turn = asyncio.Lock()
        self._running = 0
        self._nothing_runs = asyncio.Event()
        self._cut_off: list[Place] = []
        if self._ranges:
            records = sum(map(len, self._ranges.values()))
            log.warning("suspects.found", partitions=len(self._ranges), records=records)

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
        place = Place(key, decide_trial(deliveries), deliveries)
        async with self._in_company() if place.trial is Trial.IN_COMPANY else self._alone():
            try:
                yield place
            except asyncio.CancelledError:
                self._cut_off.append(place)
                raise

    def ended(self, track: Track) -> None:
        """Note that a record ended: with the last suspect, its partition is like any other."""
        suspects = self.of(track.at)
        if suspects and (track.position or 0) >= suspects.stop:
            del self._ranges[track.at]
            if self.none:
                log.info("suspects.ended")

    def take_uncounted(self) -> list[OutgoingRecord]:
        """Return what takes back the counts of those that were cut off, once."""
        records = [place.uncount for place in self._cut_off]
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
            yield


async def read_all_counts(settings: Settings) -> Counts:
    """Return every count that there is. They are few: the end of a record removes its own.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    async with TopicReader(settings, [ATTEMPTS]) as reader:
        return read_counts([(record.key, record.value) async for record in reader.to_end()])
