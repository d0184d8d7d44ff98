"""How a replay stands, read from its bookmarks."""

from types import TracebackType
from typing import Self

import pytest

from cortex_stream.kafka.bookmarks import Bookmark
from cortex_stream.kafka.reader import Position
from cortex_stream.replay.journal import (
    GROUPS,
    PLAN_AT,
    Condition,
    Mark,
    Standing,
    find_replays,
    read_standing,
)
from cortex_stream.replay.plan import Range, ReplayPlan
from cortex_stream.settings.tree import Settings
from tests.unit.replay.test_plan import NOW_MS, a_plan

PLAN = a_plan().model_copy(update={"ranges": (Range(0, 10, 20), Range(1, 0, 10))})
TOPIC = PLAN.topic


def bookmarks(plan: ReplayPlan = PLAN, **more: Bookmark) -> dict[Position, Bookmark]:
    return {
        PLAN_AT: Bookmark(0, plan.note()),
        **{(TOPIC, int(name[1:])): mark for name, mark in more.items()},
    }


def mark(offset: int, records: int, *, at_unix_ms: int = NOW_MS, per_s: float = 0.0) -> Bookmark:
    noted = Mark(records=records, at_unix_ms=at_unix_ms, per_s=per_s)
    return Bookmark(offset, noted.model_dump_json())


def standing(found: dict[Position, Bookmark]) -> Standing:
    result = read_standing("r", found)
    assert result is not None
    return result


def test_a_replay_that_has_only_begun_has_done_nothing() -> None:
    found = standing(bookmarks())

    assert (found.done_offsets, found.put_back, found.per_s) == (0, 0, 0.0)
    assert found.at_unix_ms == NOW_MS


def test_progress_is_the_sum_over_partitions_and_the_newest_note_counts() -> None:
    found = standing(
        bookmarks(p0=mark(15, 3, per_s=1.0), p1=mark(10, 4, at_unix_ms=NOW_MS + 5, per_s=2.0))
    )

    assert (found.done_offsets, found.put_back) == (15, 7)
    assert (found.per_s, found.at_unix_ms) == (2.0, NOW_MS + 5)
    assert found.next_offsets == {0: 15, 1: 10}


def test_a_replay_that_is_silent_for_15_s_has_stopped() -> None:
    found = standing(bookmarks(p0=mark(15, 3)))

    assert found.condition(now_unix_ms=NOW_MS + 15_000) is Condition.RUNNING
    assert found.condition(now_unix_ms=NOW_MS + 15_001) is Condition.STOPPED


@pytest.mark.parametrize("state", ["finished", "cancelled"])
def test_a_replay_that_has_ended_stays_so(state: str) -> None:
    ended = PLAN.model_copy(update={"state": state})

    found = standing(bookmarks(ended, p0=mark(15, 3)))

    assert found.condition(now_unix_ms=NOW_MS) is Condition(state)


def test_the_group_of_somebody_else_is_no_replay() -> None:
    theirs = Bookmark(5, "")

    assert read_standing("r", {}) is None
    assert read_standing("r", {PLAN_AT: theirs}) is None
    assert read_standing("r", bookmarks(p0=theirs)) is None


class ManyReplays:
    """Groups of 250 replays and one of somebody else; the later the name, the later it began."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return

    async def groups(self, beginning: str) -> list[str]:
        return [f"{beginning}{number:03d}" for number in range(251)]

    async def read(self, group: str) -> dict[Position, Bookmark]:
        number = int(group.removeprefix(GROUPS))
        if number == 250:
            return {PLAN_AT: Bookmark(5, "")}
        return bookmarks(PLAN.model_copy(update={"started_unix_ms": NOW_MS + number}))


async def test_of_many_replays_the_newest_are_found_whatever_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cortex_stream.replay.journal.Bookmarks", ManyReplays)

    found = await find_replays(Settings())

    assert [each.replay_id for each in found] == [f"{number:03d}" for number in range(249, 49, -1)]
