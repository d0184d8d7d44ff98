"""What was deleted unread is told and counted; other gaps are not."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from agents import deleted as module
from agents.deleted import DeletedUnread, Starts
from agents.track import Partition
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry import metrics

AT, OTHER = Partition("gaps", 0), Partition("gaps", 1)


class Kafka:
    """Knows where logs begin; fails first, as often as it is told."""

    def __init__(self, *failures: Exception, **starts: int) -> None:
        self.starts = {AT: starts.get("at", 0), OTHER: starts.get("other", 0)}
        self.asked: list[set[Partition]] = []
        self._failures = iter(failures)

    async def read_starts(self, places: Collection[Partition]) -> Starts:
        self.asked.append(set(places))
        for failure in self._failures:
            raise failure
        return {at: self.starts[at] for at in places}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ASK_AGAIN_S", 0.0)


@pytest.fixture
def told() -> Iterator[list[tuple[int, int, int]]]:
    """Yield partition, first offset and count of what is told, as it is told."""

    class Told(list[tuple[int, int, int]]):
        def append_line(self, _: Any, __: str, line: Any) -> Any:
            if line["event"] == "records.deleted_unread":
                self.append((line["partition"], line["first"], line["count"]))
            raise structlog.DropEvent

    lines = Told()
    with structlog.testing.capture_logs(processors=[lines.append_line]):
        yield lines


@asynccontextmanager
async def watching(kafka: Kafka, **due: int) -> AsyncIterator[DeletedUnread]:
    """Yield a watch of two partitions; at the end everything has been asked."""
    async with TaskScope() as scope:
        watch = DeletedUnread(kafka.read_starts, lambda work: scope.start(work, name="ask"))
        watch.begin([AT, OTHER], {{"at": AT, "other": OTHER}[name]: o for name, o in due.items()})
        yield watch
        async with asyncio.timeout(5):
            while len(scope):
                await asyncio.sleep(0)


def counted() -> float:
    return float(metrics.RECORDS_DELETED_UNREAD.labels("gaps")._value.get())


async def test_what_was_deleted_before_the_first_record_is_told(told: list[Any]) -> None:
    before = counted()
    async with watching(Kafka(at=9), at=5) as watch:
        watch.deliver(AT, first=9, end=12)

    assert told == [(0, 5, 4)]
    assert counted() - before == 4


async def test_what_was_deleted_between_two_polls_is_told(told: list[Any]) -> None:
    async with watching(Kafka(at=30)) as watch:
        watch.deliver(AT, first=5, end=10)
        watch.deliver(AT, first=30, end=31)

    assert told == [(0, 10, 20)]


async def test_it_is_told_where_no_record_is_left_at_all_and_only_once(told: list[Any]) -> None:
    async with watching(Kafka(at=9), at=5) as watch:
        watch.look([(AT, 9)])
        watch.look([(AT, 9)])
        watch.begin([AT], {AT: 5})
        watch.look([(AT, 9)])
        watch.deliver(AT, first=9, end=10)

    assert told == [(0, 5, 4)]


async def test_of_a_gap_only_what_lies_before_the_log_counts(told: list[Any]) -> None:
    async with watching(Kafka(at=7), at=5) as watch:
        watch.deliver(AT, first=9, end=10)

    assert told == [(0, 5, 2)]


async def test_a_marker_is_not_told(told: list[Any]) -> None:
    kafka = Kafka(at=3)
    async with watching(kafka, at=5) as watch:
        watch.deliver(AT, first=6, end=8)
        watch.look([(AT, 9)])

    assert told == []
    assert kafka.asked == [{AT}], "two gaps, one question"


async def test_what_was_read_and_then_deleted_is_not_told(told: list[Any]) -> None:
    kafka = Kafka(at=100, other=100)
    async with watching(kafka, at=5) as watch:
        watch.deliver(AT, first=5, end=10)
        watch.deliver(AT, first=10, end=11)
        watch.look([(AT, 11), (OTHER, 100)])

    assert told == []
    assert kafka.asked == [], "nothing was due on the other: its group had never committed there"


async def test_kafka_is_asked_again_until_it_answers(told: list[Any]) -> None:
    kafka = Kafka(ConnectionError("gone"), RuntimeError("closed"), at=9)
    async with watching(kafka, at=5) as watch:
        watch.deliver(AT, first=9, end=10)

    assert told == [(0, 5, 4)]
    assert len(kafka.asked) == 3


async def test_gaps_that_nobody_explains_do_not_pile_up(
    told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_GAPS", 2)
    async with watching(Kafka(ConnectionError("gone"), at=1000), at=0) as watch:
        for number in range(1, 5):
            watch.deliver(AT, first=10 * number, end=10 * number + 1)

    assert told == [(0, 0, 10), (0, 11, 9)]


def test_it_is_looked_at_most_once_a_second() -> None:
    async def none(_: Collection[Partition]) -> Starts:
        return {}

    watch = DeletedUnread(none, lambda work: work.close())

    assert [now_s for now_s in (7.0, 7.5, 8.0, 8.9, 9.1) if watch.due_to_look(now_s)] == [
        7.0,
        8.0,
        9.1,
    ]
