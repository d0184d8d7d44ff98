"""Faust's Kafka transport, with an intake that never blocks and commits that are true.

Why Faust's own is not enough (0.15.3, measured): it commits past unfinished work when records
finish out of order; one full topic stops all others; what was finished but not yet committed at a
rebalance runs again; and draining can wait for ever.

Leans on private names of Faust and aiokafka, as do others beside it and in `cortex_stream.kafka`
(each use is marked `noqa: SLF001`). Both are pinned; the tests in
`tests/integration/agents` and `tests/integration/kafka` hold every override.

Owner: the worker's event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import Any, Final, cast

import structlog
from aiokafka.errors import ConsumerStoppedError
from aiokafka.structs import TopicPartition
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from agents.commits import Commits
from agents.consumer_thread import EdgeConsumerThread, Polled
from agents.deleted import DeletedUnread, Starts
from agents.intake import Batch, Intake
from agents.polled import weigh
from agents.rebalances import Rebalances
from agents.track import Partition
from cortex_stream.clock import SystemClock
from cortex_stream.kafka.log_starts import read_log_starts
from cortex_stream.kafka.progress import Standing
from cortex_stream.kafka.undecodable import Record
from cortex_stream.scheduling.admission import NO_ROOM, Admission, Room
from cortex_stream.telemetry import metrics
from cortex_stream.web.status import PartitionStatus

POLL_MOST_RECORDS: Final = 500  # of one topic per poll: the next topic's turn comes soon
_CAREFUL_RECORDS: Final = 100  # of one topic in the process while there are suspects
_POLL_TIMEOUT_S: Final = 1.0
_LAST_COMMIT_TIMEOUT_S: Final = 2.0  # without it a dead broker would hold SIGTERM for ever
_REBALANCE_PAUSE_S: Final = 0.01

log = structlog.stdlib.get_logger(__name__)


class EdgeConsumer(driver.Consumer):
    """Delivers one batch per partition and poll, and commits what the tracks allow."""

    _thread: EdgeConsumerThread

    def __init__(self, transport: "EdgeTransport", *args: Any, **kwargs: Any) -> None:
        super().__init__(transport, *args, **kwargs)
        self._admission = transport.admission
        self._most_texts = transport.most_texts
        self._intake = transport.intake
        self._tracks = transport.intake.tracks
        self._tracks.on_room = self._on_room
        self._assignment: object | None = None
        self._revoked = False
        self._starving: set[str] = set()
        self._left = asyncio.Event()  # set once a stop has made its last commit
        self._commits = Commits(self._tracks, self._beside)
        self._deleted = DeletedUnread(self._read_log_starts, self.add_future)
        self.rebalances = Rebalances(SystemClock())
        self.turns = 0  # of the loop that polls and delivers

    def _new_consumer_thread(self) -> EdgeConsumerThread:
        return EdgeConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # ---- room ------------------------------------------------------------------------------------

    def room(self, topic: str, *, beside_bytes: int) -> Room:
        """Return how much of `topic` to poll. Called on the consumer's thread."""
        # Before looking: credit that comes back from now on must wake us.
        self._starving.add(topic)
        room = self._room(topic, beside_bytes=beside_bytes)
        if room is not NO_ROOM:
            self._starving.discard(topic)
        return room

    def _room(self, topic: str, *, beside_bytes: int = 0) -> Room:
        room = self._admission.room(topic, beside_bytes=beside_bytes)
        most = POLL_MOST_RECORDS
        if not self._intake.suspects.none:
            most = _CAREFUL_RECORDS - self._admission.waiting(topic)
        if room is NO_ROOM or most <= 0:
            return NO_ROOM
        return Room(min(room.records, most), room.size_bytes)

    def held(self, topic: str) -> int:
        """Return how many records of the topic are in the process. Called on the consumer's thread."""
        return self._admission.waiting(topic)

    def weigh(self, record: Record) -> int:
        """Return what the record will hold in memory. Called on the consumer's thread."""
        return weigh(record, most_texts=self._most_texts)

    def _on_room(self, topic: str) -> None:
        """Poll again once the room is worth it. Called on the worker's loop."""
        if topic in self._starving and self._admission.room(topic) is not NO_ROOM:
            self._starving.discard(topic)
            self._thread.wake()

    # ---- intake ----------------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: Any) -> None:
        """Poll and deliver until Faust stops the fetcher."""
        try:
            while not (self.should_stop or fetcher.should_stop):
                self.turns += 1
                if not self.flow_active:
                    await self.wait(self.can_resume_flow.wait())
                    continue
                polled = await self._thread.call_thread(self._thread.poll, _POLL_TIMEOUT_S)
                if polled is None:
                    await self.sleep(_REBALANCE_PAUSE_S)
                elif self._is_current(polled) and await self._may_begin(polled):
                    self._deliver(polled)
                    if self._deleted.due_to_look(polled.received_s):
                        self._deleted.look(self._positions())
                    if not self._intake.suspects.none:
                        ends = self._tracks.ends()
                        self._intake.suspects.pass_gaps(self.standings() or {}, ends)
                    if self.rebalances.pausing:
                        self.rebalances.polled(len(polled.taken), (self.standings() or {}).values())
                # else: taken under an assignment that ended; its successor begins at the commit
        except (ConsumerStoppedError, asyncio.CancelledError):
            if not self.app.should_stop:
                raise

    def _is_current(self, polled: Polled) -> bool:
        return self.flow_active and polled.assignment is self._assignment

    async def _may_begin(self, polled: Polled) -> bool:
        """See that a commit says how far records may have begun; return False if it is too late."""
        offsets = {
            Partition(*at): range(taken.records[0].offset, taken.records[-1].offset + 1)
            for at, taken in polled.taken.items()
        }
        return await self._commits.may_begin(offsets) and self._is_current(polled)

    def _deliver(self, polled: Polled) -> None:
        channels = cast("Conductor", self.app.topics)._tp_index  # noqa: SLF001
        for at, (records, weights_bytes) in polled.taken.items():
            offsets = (record.offset for record in records)
            track = self._tracks.deliver(
                Partition(at.topic, at.partition), zip(offsets, weights_bytes, strict=True)
            )
            metrics.RECORDS_CONSUMED.labels(at.topic).inc(len(records))
            self._deleted.deliver(track.at, first=records[0].offset, end=records[-1].offset + 1)
            (channel,) = channels[TP(at.topic, at.partition)]  # one agent per topic
            channel.queue.put_nowait(Batch(track, records, polled.received_s))

    # ---- commits ---------------------------------------------------------------------------------

    async def commit(
        self,
        topics: Iterable[Any] | None = None,  # noqa: ARG002 (Faust's signature)
        start_new_transaction: bool = True,  # noqa: ARG002, FBT001, FBT002
    ) -> bool:
        """Commit every partition up to its first unfinished record."""
        committed = await self._commits.go_on()
        self._show_lag()
        return committed

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust's detector takes an idle partition for a hanging one."""

    # ---- rebalances and the end ------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Drain and commit for the last time before the partitions go."""
        if revoked and self.app.should_stop:
            await self._left.wait()  # Faust would close the client under the stop that drains
            return
        if revoked:
            self.rebalances.stopped()
        self._revoked = True
        self.stop_flow()
        self.app.flow_control.suspend()
        self._tracks.close()
        await super().on_partitions_revoked(revoked)  # clears the channels, then wait_empty
        self._forget()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin with nothing in flight."""
        self._forget()
        self._intake.begin(await self._commits.take_over(assigned))
        self._commits.begin(self._intake.suspects)
        self._deleted.begin((Partition(*at) for at in assigned), self._commits.offsets())
        self._assignment = self._aiokafka_assignment()
        self._revoked = False
        await super().on_partitions_assigned(assigned, generation_id)
        self.rebalances.assigned()
        log.info("partitions.assigned", count=len(assigned))

    def resume_flow(self) -> None:
        """Poll again, unless the assignment for which Faust had prepared that has ended meanwhile."""
        if not self._revoked:
            super().resume_flow()

    async def threadsafe_partitions_assigned(
        self, receiver_loop: asyncio.AbstractEventLoop, assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Do nothing while stopping: no loop would take the call, and the member leaves next."""
        if not self.app.should_stop:
            await super().threadsafe_partitions_assigned(receiver_loop, assigned, generation_id)

    async def perform_seek(self) -> None:
        """Do nothing: `Commits.take_over` has found where to read on, and what it read may be newer."""

    async def _beside(self, work: Callable[..., Awaitable[Any]], *on: Any) -> Any:
        """Call what must run beside the aiokafka consumer, where that runs."""
        return await self._thread.call_thread(work, self._thread._ensure_consumer(), *on)  # noqa: SLF001

    async def _read_log_starts(self, places: Collection[Partition]) -> Starts:
        """Ask on the consumer's thread, but not in its queue, where commits would wait behind."""
        asking = read_log_starts(self._thread._ensure_consumer(), places)  # noqa: SLF001
        asked = asyncio.run_coroutine_threadsafe(asking, self._thread.thread_loop)
        return await asyncio.wrap_future(asked)

    async def wait_empty(self) -> None:
        """Let what runs finish, for a bounded time, and commit it. What waits runs elsewhere."""
        self._tracks.close()
        try:
            await self._intake.drain()
            async with asyncio.timeout(_LAST_COMMIT_TIMEOUT_S):
                # A process that crashes has not left its partitions in order, whatever it says.
                _ = await (self._commits.go_on() if self.crashed else self._commits.leave())
        except TimeoutError:
            log.warning("commit.last_timed_out", effect="work of the last second runs again")
        finally:
            if self.app.should_stop:
                self._left.set()

    def _forget(self) -> None:
        self._tracks.abandon()
        self._starving.clear()
        metrics.PARTITION_LAG.clear()

    # ---- what others may see ---------------------------------------------------------------------

    def partitions(self) -> tuple[PartitionStatus, ...]:
        """Return where each assigned partition stands; empty while nothing is assigned."""
        assignment = self._aiokafka_assignment()
        if assignment is None or not self.flow_active:
            return ()
        return tuple(self._status(assignment, at) for at in sorted(assignment.tps))

    def standings(self) -> dict[tuple[str, int], Standing] | None:
        """Return who may owe what for each assigned partition; None while they are handed out."""
        assignment: Any = self._aiokafka_assignment()
        current = assignment is not None and assignment is self._assignment
        if not current or not self.flow_active:
            return None
        fetched = self._thread._ensure_consumer()._fetcher._records  # noqa: SLF001
        finished = self._tracks.positions()
        standings = {}
        for at in sorted(assignment.tps):
            state = assignment.state_value(at)
            standings[at.topic, at.partition] = Standing(
                position=state._position,  # noqa: SLF001 (read once: see `_positions`)
                highwater=state.highwater,
                answered=state.timestamp,
                fetched=at in fetched,
                room=self._room(at.topic) is not NO_ROOM,
                finished=finished.get(Partition(*at)),
                committed=self._commits.offset(Partition(*at)),
            )
        return standings

    def _aiokafka_assignment(self) -> Any:
        consumer = self._thread._consumer  # noqa: SLF001
        subscription = consumer and consumer._subscription.subscription  # noqa: SLF001
        return subscription and subscription.assignment

    def _status(self, assignment: Any, at: TopicPartition) -> PartitionStatus:
        state = assignment.state_value(at)
        position = state._position  # noqa: SLF001 (read once: see `_positions`)
        committed = self._commits.offset(Partition(*at))
        begins = position if committed is None else committed
        return PartitionStatus(
            topic=at.topic,
            partition=at.partition,
            position=position,
            committed=committed,
            highwater=state.highwater,
            lag=None if state.highwater is None or begins is None else state.highwater - begins,
        )

    def _positions(self) -> Iterator[tuple[Partition, int]]:
        assignment: Any = self._aiokafka_assignment()
        current = assignment is not None and assignment is self._assignment
        for at in assignment.tps if current else ():
            # Read once: the other thread may take it away meanwhile.
            position = assignment.state_value(at)._position  # noqa: SLF001
            if position is not None:
                yield Partition(*at), position

    def _show_lag(self) -> None:
        for each in self.partitions():
            if each.lag is not None:
                metrics.PARTITION_LAG.labels(each.topic, str(each.partition)).set(each.lag)


class EdgeTransport(driver.Transport):
    """Makes our consumer. Outcomes go through a producer of our own, never through Faust's."""

    Consumer = EdgeConsumer
    admission: Admission
    intake: Intake
    most_texts: int  # of one request, labels included
