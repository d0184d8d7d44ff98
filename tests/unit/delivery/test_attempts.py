"""What is remembered of a record that may have ended a worker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.delivery.attempts import (
    COMPANY_RECORDS,
    LEAST_AHEAD_RECORDS,
    MOST_AHEAD_RECORDS,
    Mark,
    Trial,
    attempts_key,
    count_record,
    decide_trial,
    mark_begun,
    mark_left,
    read_counts,
    read_mark,
)
from topics.names import ATTEMPTS

offsets = st.integers(0, 2**62)
KEY = attempts_key(topic="staging.cortex.requests.high", partition=3, offset=41)


@given(offset=offsets, until=st.none() | offsets.map(lambda n: n % 10**18))
def test_a_mark_is_read_as_it_was_committed(offset: int, until: int | None) -> None:
    mark = Mark(offset, until)

    assert read_mark(offset, mark.metadata) == mark


@pytest.mark.parametrize("text", ["", "written by somebody else", "until=", "until=x", "until=1 "])
def test_a_text_of_others_says_nothing(text: str) -> None:
    assert read_mark(7, text) == Mark(7)
    assert not read_mark(7, text).suspects


def test_a_worker_that_goes_on_leaves_everything_that_may_have_begun_as_suspects() -> None:
    mark = mark_begun(10, before=30, begun=30, suspects=range(0))

    assert mark.suspects == range(10, 30 + LEAST_AHEAD_RECORDS)


def test_the_faster_records_begin_the_further_ahead_a_commit_allows_it() -> None:
    quick = mark_begun(1000, before=900, begun=1100, suspects=range(0))
    quickest = mark_begun(1000, before=1000, begun=100_000, suspects=range(0))

    assert quick.until == 1100 + 400
    assert quickest.until == 100_000 + MOST_AHEAD_RECORDS


def test_suspects_that_were_found_stay_suspects_whoever_is_next() -> None:
    found = range(10, 9_000)

    assert mark_begun(20, before=30, begun=30, suspects=found).suspects == range(20, 9_000)
    assert mark_left(20, suspects=found).suspects == range(20, 9_000)


def test_who_leaves_in_order_leaves_no_suspects_of_its_own() -> None:
    assert not mark_left(20, suspects=range(0)).suspects
    assert not mark_left(20, suspects=range(10, 20)).suspects


def trials(*, suspects: int) -> list[Trial]:
    """Return how one of so many suspects is run, worker after worker."""
    found = []
    deliveries = 0
    for _ in range(6):
        found.append(decide_trial(deliveries, suspects=suspects))
        deliveries = found[-1].value
    return found


def test_one_of_many_suspects_runs_in_company_then_alone_twice_then_never_again() -> None:
    assert trials(suspects=COMPANY_RECORDS + 1) == [
        Trial.IN_COMPANY,
        Trial.ALONE,
        Trial.ALONE_AGAIN,
        Trial.GIVEN_UP,
        Trial.UNREAD,
        Trial.UNREAD,
    ]


def test_one_of_few_suspects_runs_alone_twice_then_never_again() -> None:
    assert trials(suspects=COMPANY_RECORDS) == [
        Trial.ALONE,
        Trial.ALONE_AGAIN,
        Trial.GIVEN_UP,
        Trial.UNREAD,
        Trial.UNREAD,
        Trial.UNREAD,
    ]


def test_a_count_is_read_as_it_was_written_and_the_last_one_counts() -> None:
    other = attempts_key(topic="staging.cortex.requests.high", partition=3, offset=42)
    log = [count_record(KEY, 2), count_record(other, 2), count_record(KEY, 3)]

    assert {record.topic for record in log} == {ATTEMPTS}
    assert read_counts((record.key, record.value) for record in log) == {KEY: 3, other: 2}


def test_a_removed_count_is_gone_and_may_be_removed_again() -> None:
    log = [count_record(KEY, 2), count_record(KEY, 0), count_record(KEY, 0)]

    assert log[-1].value is None
    assert read_counts((record.key, record.value) for record in log) == {}


@given(
    key=st.none() | st.binary(max_size=5),
    value=st.none()
    | st.binary(max_size=20)
    | st.sampled_from([b"3", b"[]", b'{"deliveries":"3"}', b'{"deliveries":-1}', b'{"other":3}']),
)
def test_what_nobody_of_us_wrote_counts_as_nothing(key: bytes | None, value: bytes | None) -> None:
    assert read_counts([(key, value)]) == {}
