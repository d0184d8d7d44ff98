from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.deadline import Deadline
from cortex_stream.delivery.retry import (
    FREE_PER_S,
    MOST_SAVED,
    Fate,
    GiveUp,
    Leave,
    RetryBudget,
    RetryLater,
    Tries,
    TryAgain,
    decide_fate,
)
from cortex_stream.errors import (
    CortexError,
    Expired,
    InferenceFailed,
    InvalidField,
    InvalidOutput,
    InvariantError,
    RetryBudgetSpent,
    StuckRun,
)
from cortex_stream.settings.sections import RetriesSettings
from schemas.outcomes import OutcomeKind

NOW_S, NOW_MS = 100.0, 1_700_000_000_000
SETTINGS = RetriesSettings()
DEAD = GiveUp(OutcomeKind.DEAD_LETTER)
FAILED = InferenceFailed("again")


def fate(
    error: CortexError = FAILED,
    *,
    attempt: int = 1,
    retry: int = 0,
    failed_ms_ago: int | None = None,
    deadline_in_s: float | None = None,
    max_attempts: int = 3,
    settings: RetriesSettings = SETTINGS,
) -> Fate:
    first_failed = None if failed_ms_ago is None else NOW_MS - failed_ms_ago
    return decide_fate(
        error,
        Tries(attempt, retry, first_failed),
        max_attempts=max_attempts,
        settings=settings,
        deadline=None if deadline_in_s is None else Deadline(NOW_S + deadline_in_s),
        now_s=NOW_S,
        now_unix_ms=NOW_MS,
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidField("wrong"), GiveUp(OutcomeKind.REJECTED)),
        (Expired("late"), GiveUp(OutcomeKind.EXPIRED)),
        (InvalidOutput("NaN"), DEAD),
        (StuckRun("stuck"), DEAD),
        (CortexError("a bug"), DEAD),
        (RetryBudgetSpent("too many"), DEAD),
        (InferenceFailed("again"), TryAgain(0.05)),
        (InvariantError("bug"), Leave()),
    ],
)
def test_the_disposition_decides_the_fate(error: CortexError, expected: Fate) -> None:
    assert fate(error) == expected


def test_it_is_tried_twice_more_at_once_then_three_times_later_then_given_up() -> None:
    at_once = [fate(attempt=attempt) for attempt in (1, 2, 3)]
    later = [fate(attempt=3 + retry, retry=retry) for retry in (1, 2, 3, 4)]

    assert at_once == [TryAgain(0.05), TryAgain(0.05 * 1.5), RetryLater(1, 10.0)]
    assert later == [RetryLater(2, 15.0), RetryLater(3, 22.5), DEAD, DEAD]


def test_a_request_that_has_waited_is_not_tried_again_at_once() -> None:
    assert fate(attempt=2, retry=1) == RetryLater(2, 15.0)


def test_how_often_and_how_long_it_waits_can_be_set() -> None:
    settings = RetriesSettings(most=1, first_delay_s=2.0, factor=3.0)

    assert fate(max_attempts=1, settings=settings) == RetryLater(1, 2.0)
    assert fate(attempt=2, retry=1, max_attempts=1, settings=settings) == DEAD
    assert fate(max_attempts=1, settings=RetriesSettings(most=0)) == DEAD


@pytest.mark.parametrize(
    ("attempt", "left_s", "expected"),
    [
        (1, 0.051, TryAgain(0.05)),
        (1, 0.049, DEAD),
        (3, 10.001, RetryLater(1, 10.0)),
        (3, 9.999, DEAD),
    ],
)
def test_a_retry_that_could_only_begin_after_the_deadline_is_not_made(
    attempt: int, left_s: float, expected: Fate
) -> None:
    assert fate(attempt=attempt, deadline_in_s=left_s) == expected


@pytest.mark.parametrize(
    ("failed_ms_ago", "expected"), [(289_999, RetryLater(1, 10.0)), (290_000, DEAD)]
)
def test_no_retry_is_due_more_than_five_minutes_after_the_first_failure(
    failed_ms_ago: int, expected: Fate
) -> None:
    assert fate(attempt=3, failed_ms_ago=failed_ms_ago) == expected


def test_a_first_failure_that_another_clock_puts_into_the_future_counts_as_now() -> None:
    assert fate(attempt=3, failed_ms_ago=-3_600_000) == RetryLater(1, 10.0)


@given(
    attempt=st.integers(1, 9),
    retry=st.integers(0, 4),
    max_attempts=st.integers(1, 5),
    failed_ms_ago=st.none() | st.integers(-1_000_000, 1_000_000),
    deadline_in_s=st.none() | st.floats(-10, 400),
    settings=st.builds(
        RetriesSettings,
        most=st.integers(0, 3),
        first_delay_s=st.floats(0.01, 200),
        factor=st.floats(1, 3),
        within_s=st.floats(0.1, 400),
    ),
)
def test_every_retry_is_due_in_time_and_every_request_is_given_up_in_the_end(
    *,
    attempt: int,
    retry: int,
    max_attempts: int,
    failed_ms_ago: int | None,
    deadline_in_s: float | None,
    settings: RetriesSettings,
) -> None:
    decided = fate(
        attempt=attempt,
        retry=retry,
        failed_ms_ago=failed_ms_ago,
        deadline_in_s=deadline_in_s,
        max_attempts=max_attempts,
        settings=settings,
    )

    if isinstance(decided, TryAgain | RetryLater):
        passed_s = max(0, failed_ms_ago or 0) / 1000
        assert decided.delay_s < settings.within_s - passed_s
        # A deadline is a moment: now + a while - now is the while but for rounding.
        assert deadline_in_s is None or decided.delay_s < deadline_in_s + 1e-9
    if isinstance(decided, RetryLater):
        assert decided.retry == retry + 1 <= settings.most
        assert decided.delay_s == settings.first_delay_s * settings.factor**retry
    if isinstance(decided, TryAgain):
        assert attempt < max_attempts
    if attempt >= max_attempts and retry >= settings.most:
        assert decided == DEAD


def test_the_first_failure_stays_the_first() -> None:
    once = Tries().failed(now_unix_ms=5)

    assert once.first_failed_unix_ms == 5
    assert once.next().failed(now_unix_ms=9) == Tries(2, 0, 5)


# ---- the budget ----------------------------------------------------------------------------------


def test_a_burst_is_paid_from_what_was_saved_and_then_a_fifth_of_the_traffic() -> None:
    budget = RetryBudget(share=0.2, now_s=0.0)

    burst = [budget.try_spend(now_s=0.0) for _ in range(int(MOST_SAVED) + 1)]
    paid = []
    for _ in range(50):
        budget.earn()
        paid.append(budget.try_spend(now_s=0.0))

    assert burst == [True] * int(MOST_SAVED) + [False]
    assert sum(paid) == pytest.approx(10, abs=1)


def test_a_quiet_system_may_retry_although_nothing_pays_for_it() -> None:
    budget = RetryBudget(share=0.0, now_s=0.0)
    while budget.try_spend(now_s=0.0):
        pass

    assert not budget.try_spend(now_s=4.9)
    assert budget.try_spend(now_s=5.0)
    assert not budget.try_spend(now_s=5.0)


def test_no_more_is_saved_than_a_burst() -> None:
    budget = RetryBudget(share=1.0, now_s=0.0)
    for _ in range(1000):
        budget.earn()

    assert budget.left(now_s=1e6) == MOST_SAVED
    assert budget.left(now_s=5.0) == MOST_SAVED  # whoever asks with an older time changes nothing


@given(
    share=st.floats(0, 1),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50), st.integers(0, 150))),
    window=st.tuples(st.integers(0, 20), st.integers(0, 20)),
)
def test_over_any_stretch_of_time_retries_are_a_share_of_the_traffic_and_a_burst(
    share: float, steps: Sequence[tuple[float, int, int]], window: tuple[int, int]
) -> None:
    budget, now_s = RetryBudget(share=share, now_s=0.0), 0.0
    made = []
    for pause_s, requests, wanted in steps:
        now_s += pause_s
        for _ in range(requests):
            budget.earn()
        made.append(sum(budget.try_spend(now_s=now_s) for _ in range(wanted)))

    first, length = window
    part = slice(first, first + length)
    requests = sum(requests for _, requests, _ in steps[part])
    seconds = sum(pause_s for pause_s, _, _ in steps[part])
    most = MOST_SAVED + share * requests + FREE_PER_S * seconds
    assert sum(made[part]) <= most + 1e-6
