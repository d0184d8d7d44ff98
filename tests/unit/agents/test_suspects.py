"""Workers that die of their records, in a world without Kafka: who is given up, and after how long."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agents.answering import Core, Engine
from agents.commits import Commits
from agents.intake import Batch, Intake
from agents.suspects import Counts, Suspects
from agents.track import Partition, Track, Tracks
from cortex_stream.delivery import attempts
from cortex_stream.delivery.attempts import (
    COMPANY_RECORDS,
    DELIVERIES,
    attempts_key,
    read_counts,
)
from cortex_stream.delivery.outcome import Answering, Outcome
from cortex_stream.errors import BrokerUnavailable
from cortex_stream.kafka.commits import (
    Commit,
    Place,
    read_commits,
    read_ends,
    read_membership,
    seek_to,
    try_commit,
)
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.routing.hosting import Feed
from cortex_stream.scheduling.admission import Admission, Bound
from cortex_stream.task_scope import TaskScope
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from topics.names import ATTEMPTS, RESULTS

PLENTY = 10**9
MOST_LIVES = 700  # 120 records, all of them killers of readers, would end 600
FEED = Feed("t", Lane.HIGH, None)


class Kind(Enum):
    """What a record does to its worker."""

    GOOD = b"good"
    SLOW = b"slow"  # longer than a worker that is told to stop has time for
    KILLER = b"killer"
    KILLER_OF_READERS = b"killer of readers"

    @property
    def kills(self) -> bool:
        return self in {Kind.KILLER, Kind.KILLER_OF_READERS}


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes | None
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Death(Exception):
    """The process is gone; whatever it still computes has no effect."""


class World(Core, Engine):
    """Logs, commits, counts and outcomes; and one worker after the other."""

    busy = False

    def __init__(
        self, logs: Mapping[Partition, Sequence[Kind]], seed: int, *, events: bool = False
    ) -> None:
        self.logs = logs
        self.slow_s = 0.03
        self.drain_timeout_s = 0.01
        self._events = events
        self.commits: dict[Place, Commit] = {}
        self.counts: list[tuple[bytes | None, bytes | None]] = []
        self.produced = 0
        self.outcomes: dict[Place, list[str]] = defaultdict(list)
        self.deaths = 0
        self.refuses_results = False
        self._chance = random.Random(seed)  # noqa: S311 (a schedule, not a secret)
        self._dead = asyncio.Event()
        self._steps_left = 0  # until somebody kills it; below 0 nobody does

    # ---- one worker ------------------------------------------------------------------------------

    def live(self, *, stop_after: int = PLENTY) -> None:
        """Run a worker until it has finished everything, it dies, or it is told to stop."""
        asyncio.run(self._live(stop_after))
        self.deaths += self._dead.is_set()

    async def _live(self, stop_after: int) -> None:
        self._dead = asyncio.Event()
        tracks = Tracks(Admission({"t": Bound(PLENTY, PLENTY)}, total_bytes=PLENTY))
        intake = Intake(
            self,
            self,
            tracks,
            drain_timeout_s=self.drain_timeout_s,
            read_counts=self.read_counts,
        )
        await intake.start()
        commits = Commits(tracks, self._beside)
        intake.begin(await commits.take_over(self.logs))
        commits.begin(intake.suspects)
        try:
            await self._work(intake, commits, tracks, stop_after)
            tracks.close()
            await intake.drain()
            await commits.leave()
        except Death:
            return

    async def _work(
        self, intake: Intake, commits: Commits, tracks: Tracks, stop_after: int
    ) -> None:
        read = {at: commits.offset(at) or 0 for at in self.logs}
        turns = 0
        while turns < stop_after and not self._all_finished(tracks, read):
            turns += 1
            if self._dead.is_set():
                raise Death
            behind = [at for at in self.logs if read[at] < len(self.logs[at])]
            if behind and self._chance.random() < 0.7:
                at = self._chance.choice(behind)
                end = min(len(self.logs[at]), read[at] + self._chance.randint(1, 9))
                polled = range(read[at], end)
                assert await commits.may_begin({at: polled})
                read[at] = end
                track = tracks.deliver(at, ((offset, 1) for offset in polled))
                records = [Record(offset, self.logs[at][offset].value) for offset in polled]
                batch = Batch(track, records, 0.0)
                if self._events:
                    intake.take_events(batch)
                else:
                    await intake.take_requests(batch, FEED)
            if self._chance.random() < 0.2:
                await commits.go_on()
            await asyncio.sleep(0 if turns % 50 else 0.001)

    def _all_finished(self, tracks: Tracks, read: Mapping[Partition, int]) -> bool:
        positions = tracks.positions()
        return all(positions.get(at, read[at]) >= len(log) for at, log in self.logs.items())

    # ---- what it uses ----------------------------------------------------------------------------

    async def _beside(self, work: Callable[..., Awaitable[Any]], *asked: Any) -> Any:
        if self._dead.is_set():
            raise Death
        if work is read_membership:
            return None
        on = asked[-1]
        if work is read_commits:
            return {at: commit for at, commit in self.commits.items() if at in on}
        if work is seek_to:
            return None
        if work is read_ends:
            return {at: len(self.logs[at]) for at in on}
        assert work is try_commit
        self.commits.update(on)
        return True

    async def read_counts(self) -> Counts:
        await self._pause()
        return read_counts(self.counts)

    async def send(self, *records: OutgoingRecord) -> None:
        for record in records:
            await self._pause()
            if record.topic == RESULTS and self.refuses_results:
                raise BrokerUnavailable("producing: not authorized")
            self.produced += 1
            if record.topic == ATTEMPTS:
                self.counts.append((record.key, record.value))
            else:
                topic, partition, offset = (record.key or b"").decode().split("/")
                place = Partition(topic, int(partition)), int(offset)
                self.outcomes[place].append((record.value or b"").decode())  # type: ignore[index]
        await self._pause()

    async def post(self, *records: OutgoingRecord) -> asyncio.Future[None]:
        return asyncio.ensure_future(self.send(*records))

    def kill_after(self, steps: int) -> None:
        """Let somebody kill the next worker from outside, after so many steps of its producing."""
        self._steps_left = steps

    async def _pause(self) -> None:
        self._steps_left -= 1
        if not self._steps_left:
            self._dead.set()
        for _ in range(self._chance.randint(0, 2)):
            await asyncio.sleep(0)
        if self._dead.is_set():
            await _never()

    # ---- the engine ------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        return self

    def begin(self, value: bytes | None, source: RecordSource) -> Answering:
        return partial(self._answer, value, source)

    async def _answer(self, value: bytes | None, source: RecordSource) -> Outcome:
        kind = Kind(value)
        for _ in range(self._chance.randint(0, 9)):
            await asyncio.sleep(0)
        if kind is Kind.SLOW:
            await asyncio.sleep(self.slow_s)
        if kind.kills:
            self._dead.set()
            await _never()
        return _outcome(source, "result")

    def poisonous(
        self, value: bytes | None, source: RecordSource, *, deliveries: int, readable: bool
    ) -> Outcome:
        if readable and Kind(value) is Kind.KILLER_OF_READERS:
            self._dead.set()
            raise Death
        return _outcome(source, f"given up after {deliveries}")

    def due_in_s(self, _source: RecordSource) -> float:
        return 0.0

    def settled(self, _outcome: Outcome, _source: RecordSource) -> None:
        pass

    def process_event(self, value: bytes | None, source: RecordSource) -> Outcome:
        if Kind(value).kills:
            self._dead.set()
            raise Death
        return _outcome(source, "result")

    def unreadable(self, source: RecordSource, reason: str) -> Outcome:
        raise NotImplementedError

    def too_large(self, *_: Any) -> Outcome:
        raise NotImplementedError


async def _never() -> None:
    await asyncio.Event().wait()


def _outcome(source: RecordSource, text: str) -> Outcome:
    key = f"{source.topic}/{source.partition}/{source.offset}".encode()
    record = OutgoingRecord(RESULTS, key, text.encode())
    return Outcome("0" * 32, None, OutcomeKind.RESULT, "stub", (record,))


def killers_among(innocents: int, killers: int, *, of: Kind = Kind.KILLER) -> Sequence[Kind]:
    every = (innocents + killers) // max(1, killers)
    kinds = [of if n % every == every // 2 else Kind.GOOD for n in range(innocents + killers)]
    assert kinds.count(of) == killers
    return kinds


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do not wait long for a producer that is gone; log nothing."""
    monkeypatch.setattr("agents.intake._UNCOUNT_TIMEOUT_S", 0.005)
    with capture_logs():
        yield


def assert_justice(world: World) -> None:
    """Hold that each killer was given up, that nothing else was, and that only that is kept."""
    given_up: dict[bytes, int] = {}
    for at, log in world.logs.items():
        for offset, kind in enumerate(log):
            said = set(world.outcomes[at, offset])  # type: ignore[index]
            if not kind.kills:
                assert said == {"result"}, (at, offset)
            else:
                deliveries = DELIVERIES + (kind is Kind.KILLER_OF_READERS)
                assert said == {f"given up after {deliveries}"}, (at, offset)
                key = attempts_key(topic=at.topic, partition=at.partition, offset=offset)
                given_up[key] = deliveries
    assert read_counts(world.counts) == given_up
    assert set(world.commits.values()) <= {(len(log), "") for log in world.logs.values()}


def most_deaths(logs: Mapping[Partition, Sequence[Kind]]) -> int:
    kinds = [kind for log in logs.values() for kind in log]
    of_readers = kinds.count(Kind.KILLER_OF_READERS)
    return (DELIVERIES + 1) * (kinds.count(Kind.KILLER) + of_readers) + of_readers


def live_until_all_is_answered(world: World) -> None:
    for _ in range(MOST_LIVES):
        before = world.deaths
        world.live()
        if world.deaths == before:
            return
    raise AssertionError(f"still dying after {world.deaths} deaths")


@pytest.mark.parametrize("seed", range(5))
def test_a_killer_among_few_is_delivered_three_times_and_its_neighbours_are_all_answered(
    seed: int,
) -> None:
    world = World({Partition("t", 0): killers_among(COMPANY_RECORDS - 1, 1)}, seed)

    live_until_all_is_answered(world)

    assert world.deaths == DELIVERIES
    assert_justice(world)


def test_a_killer_among_many_is_delivered_once_more() -> None:
    world = World({Partition("t", 0): killers_among(200, 1)}, seed=1)

    live_until_all_is_answered(world)

    assert world.deaths == DELIVERIES + 1
    assert_justice(world)


def test_killers_beside_each_other_are_all_found() -> None:
    logs = {Partition("t", n): killers_among(60, 3) for n in range(2)}
    world = World(logs, seed=2)

    live_until_all_is_answered(world)

    assert world.deaths <= most_deaths(logs)
    assert_justice(world)


def test_a_record_that_ends_whoever_reads_it_is_given_up_unread() -> None:
    world = World({Partition("t", 0): killers_among(20, 1, of=Kind.KILLER_OF_READERS)}, seed=3)

    live_until_all_is_answered(world)

    assert world.deaths == DELIVERIES + 1
    assert_justice(world)


def test_an_event_that_ends_its_worker_is_given_up_and_those_behind_it_stay_in_order() -> None:
    world = World({Partition("t", 0): killers_among(25, 1)}, seed=9, events=True)

    live_until_all_is_answered(world)

    assert world.deaths == DELIVERIES
    assert_justice(world)
    places = list(world.outcomes)  # in the order of their first outcomes
    assert places == sorted(places)


def test_without_a_death_nothing_is_counted_and_nothing_more_is_produced() -> None:
    world = World({Partition("t", n): [Kind.GOOD] * 100 for n in range(4)}, seed=4)
    world.drain_timeout_s = 5.0  # nothing is cut off, however busy the machine is

    for _ in range(5):
        world.live(stop_after=40)  # told to stop, and started again
    live_until_all_is_answered(world)

    assert world.counts == []
    assert world.produced == 400
    assert_justice(world)


@settings(deadline=None, max_examples=60)
@given(
    logs=st.lists(
        st.lists(st.sampled_from([*[Kind.GOOD] * 12, *Kind]), max_size=40), min_size=1, max_size=3
    ),
    seed=st.integers(0, 2**32),
)
def test_wherever_killers_are_each_is_given_up_after_four_deaths_at_most_and_no_innocent_ever(
    logs: list[list[Kind]], seed: int
) -> None:
    by_partition = {Partition("t", n): log for n, log in enumerate(logs)}
    world = World(by_partition, seed)

    live_until_all_is_answered(world)

    assert world.deaths <= most_deaths(by_partition)
    assert_justice(world)


@settings(deadline=None, max_examples=60)
@given(
    log=st.lists(st.sampled_from([*[Kind.GOOD] * 6, *[Kind.SLOW] * 3, Kind.KILLER]), max_size=40),
    stops=st.lists(st.integers(1, 60), max_size=6),
    seed=st.integers(0, 2**32),
)
def test_workers_that_are_told_to_stop_at_any_time_count_against_nobody(
    log: list[Kind], stops: list[int], seed: int
) -> None:
    by_partition = {Partition("t", 0): log}
    world = World(by_partition, seed)

    for turns in stops:
        world.live(stop_after=turns)
    live_until_all_is_answered(world)

    assert world.deaths <= most_deaths(by_partition)
    assert_justice(world)


def test_a_suspect_that_is_cut_off_again_and_again_is_not_given_up() -> None:
    world = World({Partition("t", 0): [Kind.SLOW]}, seed=7)
    world.commits["t", 0] = (0, "until=1")

    for _ in range(DELIVERIES + 1):
        world.live(stop_after=30)
        assert not world.outcomes
    live_until_all_is_answered(world)

    assert_justice(world)


def test_a_suspect_whose_answer_nobody_takes_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.outbox._MIN_BACKOFF_S", 0.001)
    world = World({Partition("t", 0): [Kind.GOOD]}, seed=9)
    world.commits["t", 0] = (0, "until=1")
    world.drain_timeout_s = 5.0  # so that whoever tries again learns that it is too late

    world.refuses_results = True
    for _ in range(DELIVERIES + 1):
        world.live(stop_after=30)
        assert not world.outcomes
    world.refuses_results = False
    live_until_all_is_answered(world)

    assert_justice(world)


def test_suspects_that_have_not_had_their_turn_are_suspects_of_the_next_worker() -> None:
    world = World({Partition("t", 0): [*[Kind.SLOW] * COMPANY_RECORDS, Kind.KILLER]}, seed=8)
    world.slow_s = 0.3  # none ends in the first life, however busy the machine is
    world.live()
    assert world.deaths == 1

    world.live(stop_after=30)  # the killer waits behind a company of slow ones
    assert world.deaths == 1
    live_until_all_is_answered(world)

    assert world.deaths == DELIVERIES + 1
    assert_justice(world)


def test_kills_from_outside_in_a_row_seldom_accuse_a_good_record() -> None:
    """Of 600, less than 3 %; giving up what was alone once would accuse in 7 %."""
    accused = 0

    for seed in range(60):
        chance = random.Random(seed)  # noqa: S311 (a schedule, not a secret)
        world = World({Partition("t", 0): [Kind.GOOD] * 8}, seed)
        for _ in range(10):
            world.kill_after(chance.randint(1, 32))
            world.live()
        world.kill_after(0)
        live_until_all_is_answered(world)
        accused += sum("result" not in said for said in world.outcomes.values())

    assert accused <= 18


def test_suspects_beyond_the_mark_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small step ahead makes more commits, and finds the same killers."""
    monkeypatch.setattr(attempts, "MOST_AHEAD_RECORDS", 3)
    world = World({Partition("t", 0): killers_among(100, 2)}, seed=5)

    live_until_all_is_answered(world)

    assert world.deaths <= most_deaths(world.logs)
    assert_justice(world)


async def test_nothing_runs_beside_a_suspect_that_runs_alone() -> None:
    """Not even what is no suspect; the count stands in the log before it runs."""
    world = World({Partition("t", 0): [Kind.GOOD] * 4}, seed=6)
    world.counts.append((b"t/0/1", b'{"deliveries":2}'))
    running: set[int] = set()
    beside: dict[int, set[int]] = {}

    async def answer(source: RecordSource) -> Outcome:
        assert source.offset != 1 or read_counts(world.counts)[b"t/0/1"] == DELIVERIES
        running.add(source.offset)
        for _ in range(50):
            beside[source.offset] = beside.get(source.offset, set()) | running
            await asyncio.sleep(0)
        running.discard(source.offset)
        return _outcome(source, "result")

    cast("Any", world).begin = lambda _value, source: partial(answer, source)
    tracks = Tracks(Admission({"t": Bound(PLENTY, PLENTY)}, total_bytes=PLENTY))
    intake = Intake(world, world, tracks, drain_timeout_s=1.0, read_counts=world.read_counts)
    await intake.start()
    few = Partition("t", 0)
    intake.begin({few: range(3), Partition("t", 1): range(COMPANY_RECORDS)})
    track: Track = tracks.deliver(Partition("t", 0), ((offset, 1) for offset in range(4)))
    records = [Record(offset, b"good") for offset in range(4)]

    await intake.take_requests(Batch(track, records, 0.0), FEED)
    await intake.drain()

    assert beside[1] == {1}
    assert any(len(company) > 1 for company in beside.values())
    assert not intake.suspects.of(few)


def record_at(at: Partition, offset: int) -> RecordSource:
    return RecordSource(at.topic, at.partition, offset, timestamp_ms=0, received_s=0.0)


async def test_alone_is_only_who_runs_beside_no_run_that_outlived_its_request() -> None:
    # given
    busy = True
    at = Partition("t", 0)
    suspects = Suspects({at: range(1)}, busy=lambda: busy)
    await suspects.learn(no_counts)
    runs = asyncio.Event()

    async def run() -> None:
        async with suspects.place(record_at(at, 0)):
            runs.set()

    # when
    async with TaskScope() as scope:
        running = scope.start(run(), name="suspect")
        for _ in range(5):
            await asyncio.sleep(0)

        # then
        assert not runs.is_set()
        busy = False
        await running


@dataclass(frozen=True)
class Reached:
    """Where a partition stands, as far as suspects care."""

    position: int | None
    highwater: int | None
    finished: int | None


@pytest.mark.parametrize(
    ("reached", "delivered", "over"),
    [
        (Reached(10, 12, None), None, True),  # all of them were deleted
        (Reached(10, 10, 9), 9, True),  # the last one is a marker
        (Reached(10, 12, 7), 9, False),  # one of them still runs
        (Reached(9, 12, 9), 9, False),  # the last one is not delivered yet
        (Reached(None, None, None), None, False),
        (Reached(5, 5, 5), 5, True),  # the log ends before the mark
        (Reached(5, 5, 4), 5, False),
    ],
)
def test_suspects_end_once_nothing_of_them_is_unfinished_or_still_to_come(
    reached: Reached, delivered: int | None, *, over: bool
) -> None:
    at = Partition("t", 0)
    suspects = Suspects({at: range(3, 10)})

    ends = {} if delivered is None else {at: delivered}
    suspects.pass_gaps({at: cast("Any", reached)}, ends)

    assert suspects.none is over


def test_suspects_of_partitions_that_are_being_handed_out_stay() -> None:
    suspects = Suspects({Partition("t", 0): range(3, 10)})

    suspects.pass_gaps({}, {})

    assert not suspects.none


async def test_who_left_its_place_uncounted_is_cut_off_until_it_has_a_place_again() -> None:
    at = Partition("t", 0)
    suspects = Suspects({at: range(1)})
    await suspects.learn(no_counts)

    async with suspects.place(record_at(at, 0)) as place:
        assert place is not None
    suspects.cut_off(place)
    assert [record.value for record in suspects.take_uncounted()] == [None]

    suspects.cut_off(place)
    async with suspects.place(record_at(at, 0)):
        pass
    assert suspects.take_uncounted() == []


async def no_counts() -> Counts:
    return {}
