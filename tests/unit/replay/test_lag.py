"""How many records wait for workers, by what they have committed."""

from cortex_stream.kafka.bookmarks import Bookmark
from cortex_stream.replay.injection import lag_records

FIRST, SECOND = ("lane", 0), ("lane", 1)


def test_before_the_first_commit_everything_that_is_kept_waits() -> None:
    assert lag_records({FIRST: 2, SECOND: 0}, {FIRST: 10, SECOND: 5}, {}) == 13


def test_what_lies_behind_the_commit_waits() -> None:
    assert lag_records({FIRST: 0}, {FIRST: 10}, {FIRST: Bookmark(7, "")}) == 3


def test_records_that_are_kept_no_longer_do_not_wait() -> None:
    assert lag_records({FIRST: 6}, {FIRST: 10}, {FIRST: Bookmark(2, "")}) == 4


def test_a_commit_beyond_the_end_of_a_topic_made_anew_is_no_lag_and_no_credit() -> None:
    ends = {FIRST: 1, SECOND: 4}

    assert lag_records({FIRST: 0, SECOND: 0}, ends, {FIRST: Bookmark(9, "")}) == 4
