import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.record import RecordSource
from cortex_stream.routing.budget import decide_deadline
from schemas.contract import MAX_SAFE_INTEGER
from schemas.requests import RequestAttributes

NOW_S = 5000.0
NOW_MS = 1_700_000_000_000


def remaining_s(
    *, deadlinems: int | None = 1000, time_ms: int | None = None, record_ms: int = NOW_MS
) -> float | None:
    time = None if time_ms is None else dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    attributes = RequestAttributes(id="1", type="t", deadlinems=deadlinems, time=time)
    source = RecordSource("topic", 0, 0, record_ms, NOW_S)
    deadline = decide_deadline(attributes, source, now_s=NOW_S, now_unix_ms=NOW_MS)
    return None if deadline is None else round(deadline.remaining_s(now_s=NOW_S), 6)


def test_without_a_budget_there_is_no_deadline() -> None:
    assert remaining_s(deadlinems=None, time_ms=NOW_MS) is None


def test_the_budget_runs_from_time() -> None:
    assert remaining_s(time_ms=NOW_MS - 400, record_ms=NOW_MS - 900) == 0.6


def test_the_budget_runs_from_the_records_timestamp_where_time_is_missing() -> None:
    assert remaining_s(record_ms=NOW_MS - 900) == 0.1


@pytest.mark.parametrize(("ahead_ms", "left_s"), [(60_000, 61.0), (60_001, 0.1)])
def test_a_time_more_than_60_s_ahead_is_not_believed(ahead_ms: int, left_s: float) -> None:
    assert remaining_s(time_ms=NOW_MS + ahead_ms, record_ms=NOW_MS - 900) == left_s


@pytest.mark.parametrize("record_ms", [-1, NOW_MS + 60_001, 4_102_444_800_000])
def test_the_budget_runs_from_now_where_the_records_timestamp_is_no_better(record_ms: int) -> None:
    assert remaining_s(record_ms=record_ms) == 1.0


def test_a_budget_that_is_used_up_on_arrival_is_a_deadline_in_the_past() -> None:
    assert remaining_s(time_ms=NOW_MS - 1500) == -0.5
    assert remaining_s(deadlinems=0) == 0.0


@given(
    deadlinems=st.integers(0, MAX_SAFE_INTEGER),
    time=st.none() | st.datetimes(timezones=st.timezones()),
    record_ms=st.integers(-(2**63), 2**63 - 1),
)
def test_no_moment_breaks_it_and_none_gives_more_than_a_minute_on_top(
    deadlinems: int, time: dt.datetime | None, record_ms: int
) -> None:
    attributes = RequestAttributes(id="1", type="t", deadlinems=deadlinems, time=time)
    source = RecordSource("topic", 0, 0, record_ms, NOW_S)

    deadline = decide_deadline(attributes, source, now_s=NOW_S, now_unix_ms=NOW_MS)

    assert deadline is not None
    assert deadline.remaining_s(now_s=NOW_S) <= deadlinems / 1000 + 60 + 1
