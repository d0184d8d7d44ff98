"""What of a tenant is due before a moment."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.deadline import Deadline
from cortex_stream.scheduling.due_tokens import STEP_S, DueTokens

NOW_S = 1000.0
FAST_S = 1e-9


def due_in(left_s: float | None) -> Deadline | None:
    return None if left_s is None else Deadline(NOW_S + left_s)


def tokens_of(*lefts_s: float | None, tokens: int = 10) -> DueTokens:
    due = DueTokens()
    for left_s in lefts_s:
        due.add(tokens, due_in(left_s))
    return due


def before(due: DueTokens, left_s: float, *, token_s: float = FAST_S) -> float:
    return due.before(Deadline(NOW_S + left_s), now_s=NOW_S, token_s=token_s)


def test_those_that_are_due_earlier_are_before_it() -> None:
    due = tokens_of(1.0, 1.5, 3.0, None)

    assert (before(due, 0.5), before(due, 2.0), before(due, 9.0)) == (0, 20, 30)
    assert due.total == 40


def test_those_that_are_late_already_do_not_run() -> None:
    assert before(tokens_of(-1.0, 1.0), 2.0) == 10


def test_no_more_of_them_run_than_there_is_time_for() -> None:
    burst = tokens_of(*[1.0] * 100, 2.0)

    assert before(burst, 4.0, token_s=0.01) == pytest.approx(125 + 10)  # to the end of a step
    assert before(burst, 4.0, token_s=0.001) == pytest.approx(1010)


def test_twenty_seconds_are_as_far_as_it_looks() -> None:
    assert before(tokens_of(1.0, 19.0, 21.0), 3600.0) == 20
    assert (
        before(tokens_of(*(n / 4 for n in range(4000))), 3600.0) == 81 * 10
    )  # more are not looked at


@given(st.lists(st.one_of(st.none(), st.floats(-5, 30)), max_size=40), st.randoms())
def test_what_has_gone_is_before_nobody(lefts_s: list[float | None], draw: Random) -> None:
    due = tokens_of(*lefts_s)
    draw.shuffle(lefts_s)
    gone, left = lefts_s[: len(lefts_s) // 2], lefts_s[len(lefts_s) // 2 :]

    for each in gone:
        due.remove(10, due_in(each))

    assert due.total == 10 * len(left)
    inside = [each for each in left if each is not None and 0 <= each < 15]
    at_an_end = [  # of the first or last step: they may count or not
        each for each in left if each is not None and min(abs(each), abs(each - 15)) <= STEP_S
    ]
    assert abs(before(due, 15) - 10 * len(inside)) <= 10 * len(at_an_end)
