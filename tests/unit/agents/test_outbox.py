"""Answers on their way into the log: together where that works, apart where it does not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, cast

import pytest

from agents.answering import Answer, Core, Engine
from agents.outbox import Outbox, wait_for_company_s
from agents.track import Partition, Track, Tracks
from cortex_stream.clock import ManualClock
from cortex_stream.deadline import Deadline
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.errors import BrokerUnavailable, OutcomeTooLarge
from cortex_stream.record import OutgoingRecord, RecordSource
from cortex_stream.scheduling.admission import Admission, Bound
from cortex_stream.task_scope import TaskScope
from schemas.outcomes import OutcomeKind
from topics.names import VALIDATION

TOPIC = "cortex.requests.low"
PLENTY = 10**9
NOW_S = 1000.0
EXPIRED: dict[str, object] = {"kind": OutcomeKind.EXPIRED}
SET_BACK: dict[str, object] = {"kind": None, "handed_to": VALIDATION}
HUGE, REPLACEMENT, FORBIDDEN = b"huge", b"replacement", b"forbidden"
UNCONFIRMED, BLOCKED = b"unconfirmed", b"blocked"


@dataclass
class Log:
    """What is durable, by call.

    Attributes:
        open: cleared, nothing is confirmed.
        away: so many calls are refused.
    """

    calls: list[tuple[bytes | None, ...]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    away: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    @property
    def values(self) -> list[bytes | None]:
        return [value for call in self.calls for value in call]

    async def send(self, *records: OutgoingRecord) -> None:
        self.asked += 1
        await self.open.wait()
        values = tuple(record.value for record in records)
        if UNCONFIRMED in values or BLOCKED in values:
            await asyncio.Event().wait()
        if self.away or FORBIDDEN in values:
            self.away = max(0, self.away - 1)
            raise BrokerUnavailable("nobody takes it")
        if HUGE in values:
            raise OutcomeTooLarge("8 MiB at most")
        self.calls.append(values)

    async def post(self, *records: OutgoingRecord) -> asyncio.Future[Any]:
        if BLOCKED in [record.value for record in records]:
            await asyncio.Event().wait()
        posted = [asyncio.ensure_future(self.send(record)) for record in records]
        return posted[0] if len(posted) == 1 else asyncio.gather(*posted)


@dataclass
class Worker(Core):
    """Replaces what is too large; remembers whose outcomes are durable."""

    busy = False
    settled_offsets: list[int] = field(default_factory=list)

    @property
    def engine(self) -> Engine:
        return cast("Engine", self)  # all that is asked of it

    def settled(self, _outcome: Outcome, source: RecordSource) -> None:
        self.settled_offsets.append(source.offset)

    def too_large(
        self, outcome: Outcome, value: bytes | None, source: RecordSource, error: OutcomeTooLarge
    ) -> Outcome:
        del outcome, value, source, error
        return outcome_of(REPLACEMENT)


@dataclass
class Desk:
    """An outbox with all that it is given."""

    outbox: Outbox
    log: Log
    worker: Worker
    track: Track
    scope: TaskScope

    def publish(self, *values: bytes, first: int = 0, stayed_s: float = 0.0) -> None:
        for offset, value in enumerate(values, start=first):
            answer = answer_of(value, offset=offset, received_s=NOW_S - stayed_s)
            self.outbox.publish(answer, self.track)

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not done():
                await asyncio.sleep(0)


def outcome_of(*values: bytes) -> Outcome:
    records = tuple(OutgoingRecord("out", None, value) for value in values)
    return Outcome("id", "request", None, "type", records)


def answer_of(*values: bytes, offset: int, received_s: float) -> Answer:
    return Answer(b"asked", RecordSource(TOPIC, 0, offset, 0, received_s), outcome_of(*values))


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.outbox._MIN_BACKOFF_S", 0.001)


@asynccontextmanager
async def open_desk(*, records: int = 100) -> AsyncIterator[Desk]:
    tracks = Tracks(Admission({TOPIC: Bound(PLENTY, PLENTY)}, total_bytes=PLENTY))
    track = tracks.deliver(Partition(TOPIC, 0), ((offset, 1) for offset in range(records)))
    log, worker = Log(), Worker()
    async with TaskScope() as scope:
        outbox = Outbox(worker, log, tracks, scope, ManualClock(monotonic_s=NOW_S))
        yield Desk(outbox, log, worker, track, scope)


async def test_answers_of_one_turn_are_posted_by_one_task_and_in_order() -> None:
    async with open_desk() as desk:
        desk.log.open.clear()
        desk.publish(b"a", b"b", b"c")
        await desk.until(lambda: desk.log.asked == 3)
        tasks = len(desk.scope)
        desk.log.open.set()
        await desk.until(lambda: len(desk.worker.settled_offsets) == 3)

    assert tasks == 1
    assert desk.log.values == [b"a", b"b", b"c"]
    assert desk.worker.settled_offsets == [0, 1, 2]


@pytest.mark.parametrize(
    ("stayed_s", "left_s", "waits_s"),
    [
        (0.0, inf, 0.0),
        (0.049, inf, 0.0),
        (0.05, inf, 0.005),
        (0.1, inf, 0.01),
        (0.2, inf, 0.02),
        (1.0, inf, 0.1),
        (60.0, inf, 0.1),
        (60.0, 10.0, 0.1),
        (60.0, 0.1, 0.01),
        (60.0, 0.01, 0.0),
        (60.0, -1.0, 0.0),
    ],
)
def test_an_answer_waits_for_a_tenth_of_its_stay_and_of_what_is_left_within_bounds(
    stayed_s: float, left_s: float, waits_s: float
) -> None:
    assert wait_for_company_s(stayed_s, left_s=left_s) == pytest.approx(waits_s)


async def test_an_answer_that_must_be_there_soon_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.outbox._MOST_WAIT_S", 60.0)
    async with open_desk() as desk:
        answer = answer_of(b"a", offset=0, received_s=NOW_S - 1000)
        soon = replace(answer.outcome, deadline=Deadline(NOW_S + 0.01))
        desk.outbox.publish(Answer(answer.value, answer.source, soon), desk.track)
        await desk.until(lambda: desk.worker.settled_offsets == [0])


async def test_an_answer_that_waits_for_company_goes_alone_if_none_comes() -> None:
    async with open_desk() as desk:
        desk.publish(b"a", stayed_s=10)
        await desk.until(lambda: desk.worker.settled_offsets == [0])


@pytest.mark.parametrize("left_s", [None, -1.0, 500.0])
@pytest.mark.parametrize("ended", [EXPIRED, SET_BACK], ids=["expired", "set back"])
async def test_what_comes_by_the_hundred_waits_for_company_however_short_it_stayed(
    ended: dict[str, object], left_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.outbox._MOST_WAIT_S", 50.0)
    async with open_desk() as desk:
        desk.outbox.publish(answer_that(ended, left_s), desk.track)
        for _ in range(20):
            await asyncio.sleep(0)
        early = desk.log.asked
        desk.publish(b"b", first=1)
        await desk.until(lambda: desk.worker.settled_offsets == [0, 1])
        await desk.scope.close()  # of the task that sleeps still

    assert early == 0


async def test_who_is_refused_before_its_deadline_learns_it_within_a_tenth_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.outbox._MOST_WAIT_S", 60.0)
    async with open_desk() as desk:
        desk.outbox.publish(answer_that(EXPIRED, 0.1), desk.track)
        await desk.until(lambda: desk.worker.settled_offsets == [0])


async def test_what_is_handed_to_the_next_stage_goes_at_once() -> None:
    async with open_desk() as desk:
        desk.outbox.publish(
            answer_that({"kind": None, "handed_to": "embedding"}, 500.0), desk.track
        )
        for _ in range(20):
            await asyncio.sleep(0)

        assert desk.log.asked == 1


def answer_that(ended: dict[str, object], left_s: float | None) -> Answer:
    found = answer_of(b"a", offset=0, received_s=NOW_S)
    deadline = None if left_s is None else Deadline(NOW_S + left_s)
    outcome = replace(found.outcome, deadline=deadline, **ended)  # type: ignore[arg-type]
    return Answer(found.value, found.source, outcome)


@pytest.mark.parametrize("together", [1, 31])
async def test_what_must_not_wait_and_a_full_set_take_all_along(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.outbox._MOST_WAIT_S", 60.0)
    values = [str(n).encode() for n in range(together)]
    async with open_desk() as desk:
        desk.publish(*values, stayed_s=1000)
        for _ in range(20):
            await asyncio.sleep(0)
        early = desk.log.asked
        desk.publish(b"last", first=together, stayed_s=1000 if together == 31 else 0)
        await desk.until(lambda: len(desk.worker.settled_offsets) == together + 1)
        await desk.scope.close()  # of the task that sleeps still

    assert early == 0
    assert desk.log.values == [*values, b"last"]


async def test_after_those_that_waited_were_taken_along_the_next_wait_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.outbox._MOST_WAIT_S", 60.0)
    async with open_desk() as desk:
        desk.publish(b"a", stayed_s=1000)
        desk.publish(b"b", first=1)
        await desk.until(lambda: desk.worker.settled_offsets == [0, 1])
        desk.publish(b"c", first=2, stayed_s=1000)
        for _ in range(20):
            await asyncio.sleep(0)
        early = desk.log.asked
        desk.publish(b"d", first=3)
        await desk.until(lambda: desk.worker.settled_offsets == [0, 1, 2, 3])
        await desk.scope.close()  # of the tasks that sleep still

    assert early == 2


async def test_no_more_are_posted_than_one_turn_can_finish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.outbox._UNCONFIRMED_SETS", 2)
    values = [str(n).encode() for n in range(100)]
    async with open_desk() as desk:
        desk.log.open.clear()
        desk.publish(*values)
        await desk.until(lambda: desk.log.asked == 64)
        for _ in range(20):
            await asyncio.sleep(0)
        asked = desk.log.asked
        desk.log.open.set()
        await desk.until(lambda: len(desk.worker.settled_offsets) == 100)

    assert asked == 64
    assert desk.log.values == values


@pytest.mark.parametrize("value", [UNCONFIRMED, BLOCKED])
async def test_an_answer_that_hangs_holds_up_none_of_its_company(
    value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.outbox._PATIENCE_S", 0.01)
    async with open_desk() as desk:
        desk.publish(b"a", value, b"c")
        await desk.until(lambda: sorted(desk.worker.settled_offsets) == [0, 2])
        oldest, unfinished = desk.outbox.oldest, 1 in desk.track.unfinished
        await desk.scope.close()

    assert oldest == 1
    assert unfinished


@pytest.mark.parametrize("values", [[UNCONFIRMED], [b"vector", UNCONFIRMED]])
async def test_an_answer_that_is_never_confirmed_is_sent_again_under_its_number(
    values: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.outbox._PATIENCE_S", 0.01)
    monkeypatch.setattr("agents.outbox.DELIVERY_TIMEOUT_S", 0.01)
    async with open_desk() as desk:
        answer = answer_of(*values, offset=0, received_s=NOW_S)
        desk.outbox.publish(answer, desk.track)
        await desk.until(lambda: bool(desk.outbox.unreachable))
        (reason,), oldest = desk.outbox.unreachable, desk.outbox.oldest
        await desk.scope.close()

    assert "did not confirm" in reason
    assert oldest == 0


async def test_nothing_is_finished_before_it_is_durable_and_the_oldest_is_told() -> None:
    async with open_desk() as desk:
        desk.log.open.clear()
        desk.publish(b"a")
        await desk.until(lambda: desk.log.asked == 1)
        early, oldest = list(desk.worker.settled_offsets), desk.outbox.oldest
        desk.log.open.set()
        await desk.until(lambda: desk.worker.settled_offsets == [0])

    assert early == []
    assert oldest is not None
    assert desk.outbox.oldest is None


async def test_what_is_too_large_is_replaced_and_its_company_is_published() -> None:
    async with open_desk() as desk:
        desk.publish(b"a", HUGE, b"c")
        await desk.until(lambda: len(desk.worker.settled_offsets) == 3)

    assert sorted(value or b"" for value in desk.log.values) == [b"a", b"c", REPLACEMENT]


async def test_an_answer_that_nobody_takes_holds_up_none_of_its_company() -> None:
    async with open_desk() as desk:
        desk.publish(b"a", FORBIDDEN, b"c")
        await desk.until(lambda: sorted(desk.worker.settled_offsets) == [0, 2])
        await desk.until(lambda: desk.outbox.unreachable == ("answers wait: nobody takes it",))
        unfinished = 1 in desk.track.unfinished
        await desk.scope.close()

    assert desk.log.values == [b"a", b"c"]
    assert unfinished


async def test_answers_are_sent_again_until_the_broker_is_back() -> None:
    async with open_desk() as desk:
        desk.log.away = 5
        desk.publish(b"a", b"b")
        await desk.until(lambda: len(desk.worker.settled_offsets) == 2)

    assert sorted(value or b"" for value in desk.log.values) == [b"a", b"b"]
    assert not desk.outbox.unreachable


async def test_after_what_waited_was_cut_off_the_next_answers_are_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.outbox._UNCONFIRMED_SETS", 1)
    async with open_desk() as desk:
        desk.log.open.clear()
        desk.publish(b"held")
        await desk.until(lambda: desk.log.asked == 1)
        desk.publish(b"waits", first=1)
        await asyncio.sleep(0)
        await desk.scope.close()
        desk.outbox.forget()
        desk.log.open.set()
        desk.publish(b"next", first=2)
        await desk.until(lambda: desk.worker.settled_offsets == [2])

    assert desk.log.values == [b"held", b"next"]  # it was posted before


async def test_after_one_that_waited_for_company_was_cut_off_the_next_are_published() -> None:
    async with open_desk() as desk:
        desk.publish(b"cut off", stayed_s=10)
        await desk.scope.close()
        desk.outbox.forget()
        desk.publish(b"next", first=1, stayed_s=10)
        await desk.until(lambda: desk.worker.settled_offsets == [1])

    assert desk.log.values == [b"next"]


def sending(desk: Desk, value: bytes) -> "asyncio.Future[BrokerUnavailable | None]":
    records = (OutgoingRecord("out", None, value),)
    return asyncio.ensure_future(desk.outbox.try_durable(records))


async def test_what_hangs_alone_holds_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.outbox._PATIENCE_S", 0.01)
    monkeypatch.setattr("agents.outbox._UNCONFIRMED_SETS", 1)
    async with open_desk() as desk:
        hanging = sending(desk, BLOCKED)
        others = [sending(desk, value) for value in (b"a", b"b")]
        desk.publish(b"c")
        await desk.until(lambda: len(desk.log.values) == 3)
        still = not hanging.done()
        hanging.cancel()
        found = await asyncio.gather(*others)

    assert still
    assert found == [None, None]
    assert sorted(value or b"" for value in desk.log.values) == [b"a", b"b", b"c"]


async def test_a_place_is_given_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.outbox._PATIENCE_S", 0.01)
    monkeypatch.setattr("agents.outbox._UNCONFIRMED_SETS", 1)
    async with open_desk() as desk:
        desk.log.open.clear()
        slow = sending(desk, b"a")
        await asyncio.sleep(0.05)  # longer than its patience
        desk.log.open.set()
        await slow
        monkeypatch.setattr("agents.outbox._PATIENCE_S", 60.0)
        desk.log.open.clear()
        others = [sending(desk, value) for value in (b"b", b"c")]
        for _ in range(10):
            await asyncio.sleep(0)
        asked = desk.log.asked
        desk.log.open.set()
        await asyncio.gather(*others)

    assert asked == 2
    assert desk.log.values == [b"a", b"b", b"c"]
