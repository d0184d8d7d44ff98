"""Faust's Kafka transport, with an intake that never blocks and commits that are true.

Why Faust's own is not enough (0.15.3, measured): it commits past unfinished work when records
finish out of order; one full topic stops all others; what was finished but not yet committed at a
rebalance runs again; and draining can wait for ever.

Leans on private names of Faust and aiokafka, as do `faust_app`, `faust_worker` and `web` beside it
and `producer` and `undecodable` in `cortex_stream.kafka`. Both are pinned; the tests in
`tests/integration/agents` and `tests/integration/kafka` hold every override.

Owner: `EdgeConsumer` belongs to the worker's event loop; `EdgeConsumerThread.poll` and `_wake` run
on the loop of the consumer's own thread, which keeps the heartbeats going.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

import structlog
from aiokafka.errors import ConsumerStoppedError
from aiokafka.structs import TopicPartition
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from agents.commits import Commits
from agents.intake import Batch, Intake
from agents.polled import Taken, weigh
from agents.rebalances import Rebalances
from agents.track import Partition
from cortex_stream.clock import SystemClock
from cortex_stream.kafka.progress import Standing
from cortex_stream.kafka.undecodable import Record, keep_fetched_bytes, salvage
from cortex_stream.scheduling.admission import NO_ROOM, Admission, Room
from cortex_stream.telemetry import metrics
from cortex_stream.web.status import PartitionStatus

POLL_MOST_RECORDS: Final = 500  # of one topic per poll: the next topic's turn comes soon
_CAREFUL_RECORDS: Final = 100  # of one topic in the process while there are suspects
_STEP_RECORDS: Final = 50  # weighed before more are taken: 50 of 256 texts each are 38 MB
_POLL_TIMEOUT_S: Final = 1.0
# aiokafka has one fetch per broker in flight. At Faust's 1500 ms a drained partition waits that
# long behind the empty ones: 10.7 records/s instead of 47.7 with 100 kB records.
_FETCH_MAX_WAIT_MS: Final = 100
_LAST_COMMIT_TIMEOUT_S: Final = 2.0  # without it a dead broker would hold SIGTERM for ever
_REBALANCE_PAUSE_S: Final = 0.01

log = structlog.stdlib.get_logger(__name__)


class Polled(NamedTuple):
    """What one poll took, and the assignment it belongs to: aiokafka's object, by identity.

    The generation would not do: a static member that comes back keeps it.
    """

    assignment: object
    received_s: float
    taken: Mapping[TopicPartition, Taken]


class EdgeConsumerThread(driver.AIOKafkaConsumerThread):
    """Polls each topic for no more than there is room for."""

    consumer: "EdgeConsumer"
    _polls = 0
    _failure: Exception | None = None

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        keep_fetched_bytes()
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_MAX_WAIT_MS  # noqa: SLF001
        return consumer

    def wake(self) -> None:
        """End a waiting poll. Called on the worker's loop when a full topic has room again."""
        self.thread_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        fetcher = self._ensure_consumer()._fetcher  # noqa: SLF001
        if fetcher is not None:
            for waiter in list(fetcher._fetch_waiters):  # noqa: SLF001
                fetcher._notify(waiter)  # noqa: SLF001

    async def poll(self, timeout_s: float) -> Polled | None:
        """Return what is there, waiting at most `timeout_s` for it; None while rebalancing."""
        fetcher = self._ensure_consumer()._fetcher  # noqa: SLF001
        subscriptions = fetcher._subscriptions  # noqa: SLF001
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        # The context tells aiokafka that we are alive although every topic may be full.
        with subscriptions.fetch_context():
            while True:
                if fetcher._closed:  # noqa: SLF001
                    raise ConsumerStoppedError
                if (
                    not self.consumer.flow_active
                    or subscriptions.reassignment_in_progress
                    or subscriptions.subscription is None
                ):
                    return None
                assignment = subscriptions.subscription.assignment
                taken = await self._take(fetcher)
                left_s = deadline - loop.time()
                if taken or left_s <= 0:
                    return Polled(assignment, SystemClock().monotonic_s(), taken)
                waiter = fetcher._create_fetch_waiter()  # noqa: SLF001
                done, _ = await asyncio.wait([waiter], timeout=left_s)
                if done:
                    waiter.result()  # raises what the coordinator or a fetch ran into
                else:
                    waiter.cancel()

    async def _take(self, fetcher: Any) -> dict[TopicPartition, Taken]:
        """Take fetched records topic by topic. Never suspends, so the assignment cannot change.

        Partition by partition, too: aiokafka would lose what it has taken from others before it
        meets one that raises.
        """
        self._raise_failure()
        topics: dict[str, list[TopicPartition]] = defaultdict(list)
        for at in list(self.consumer._active_partitions):  # noqa: SLF001
            topics[at.topic].append(at)
        self._polls += 1
        taken: dict[TopicPartition, Taken] = {}
        taken_bytes = 0
        for topic, partitions in topics.items():
            room = self.consumer.room(topic, beside_bytes=taken_bytes)
            fetched = sorted(at for at in partitions if at in fetcher._records)  # noqa: SLF001
            first = self._polls % max(1, len(fetched))  # each comes first in its turn
            for at in fetched[first:] + fetched[:first]:
                pieces = Taken([], [])
                while min(room) > 0 and at in fetcher._records:  # noqa: SLF001
                    step = min(room.records, _STEP_RECORDS)
                    records = await self._take_from(fetcher, at, step)
                    if not records:
                        break
                    weights_bytes = [self.consumer.weigh(record) for record in records]
                    pieces.records.extend(records)
                    pieces.weights_bytes.extend(weights_bytes)
                    weight_bytes = sum(weights_bytes)
                    taken_bytes += weight_bytes
                    room = Room(room.records - len(records), room.size_bytes - weight_bytes)
                if pieces.records:
                    taken[at] = pieces
        if not taken:
            self._raise_failure()
        return taken

    async def _take_from(self, fetcher: Any, at: TopicPartition, room: int) -> list[Record]:
        try:
            taken = await fetcher.fetched_records({at}, timeout=0, max_records=room)
        except Exception as error:  # noqa: BLE001 (raised once what was taken is delivered)
            records = salvage(fetcher, at, most_records=room)
            if not records:
                self._failure = error
            return records
        return cast("list[Record]", taken.get(at, []))

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


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
        self._starving: set[str] = set()
        self._left = asyncio.Event()  # set once a stop has made its last commit
        self._commits = Commits(self._tracks, self._beside)
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
        self._assignment = self._aiokafka_assignment()
        await super().on_partitions_assigned(assigned, generation_id)
        self.rebalances.assigned()
        log.info("partitions.assigned", count=len(assigned))

    async def threadsafe_partitions_assigned(
        self, receiver_loop: asyncio.AbstractEventLoop, assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Do nothing while stopping: no loop would take the call, and the member leaves next."""
        if not self.app.should_stop:
            await super().threadsafe_partitions_assigned(receiver_loop, assigned, generation_id)

    async def _beside(self, work: Callable[..., Awaitable[Any]], *on: Any) -> Any:
        """Call what must run beside the aiokafka consumer, where that runs."""
        return await self._thread.call_thread(work, self._thread._ensure_consumer(), *on)  # noqa: SLF001

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
                position=state.position if state.has_valid_position else None,
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
        position = state.position if state.has_valid_position else None
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
