import pytest

from cortex_stream.deadline import Deadline
from cortex_stream.delivery.retry import Fate, GiveUp, Leave, TryAgain, decide_fate
from cortex_stream.errors import (
    CortexError,
    Expired,
    InferenceFailed,
    InvalidField,
    InvalidOutput,
    InvariantError,
    StuckRun,
)
from schemas.outcomes import OutcomeKind


def fate(error: CortexError, *, attempt: int = 1, deadline_in_s: float | None = None) -> Fate:
    deadline = None if deadline_in_s is None else Deadline(100.0 + deadline_in_s)
    return decide_fate(error, attempt=attempt, max_attempts=3, deadline=deadline, now_s=100.0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidField("wrong"), GiveUp(OutcomeKind.REJECTED)),
        (Expired("late"), GiveUp(OutcomeKind.EXPIRED)),
        (InvalidOutput("NaN"), GiveUp(OutcomeKind.DEAD_LETTER)),
        (StuckRun("stuck"), GiveUp(OutcomeKind.DEAD_LETTER)),
        (CortexError("a bug"), GiveUp(OutcomeKind.DEAD_LETTER)),
        (InferenceFailed("again"), TryAgain(0.05)),
        (InvariantError("bug"), Leave()),
    ],
)
def test_the_disposition_decides_the_fate(error: CortexError, expected: Fate) -> None:
    assert fate(error) == expected


def test_pauses_grow_until_the_last_attempt_is_a_dead_letter() -> None:
    fates = [fate(InferenceFailed("again"), attempt=attempt) for attempt in (1, 2, 3, 4)]

    dead = GiveUp(OutcomeKind.DEAD_LETTER)
    assert fates == [TryAgain(0.05), TryAgain(0.05 * 1.5), dead, dead]


@pytest.mark.parametrize(
    ("left_s", "expected"),
    [(0.051, TryAgain(0.05)), (0.049, GiveUp(OutcomeKind.DEAD_LETTER))],
)
def test_a_retry_that_could_only_begin_after_the_deadline_is_not_made(
    left_s: float, expected: Fate
) -> None:
    assert fate(InferenceFailed("again"), deadline_in_s=left_s) == expected
