import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.scheduling.batcher import (
    LEAST_FILL,
    MAX_LATE_ROWS,
    REPLAY_PART,
    BatchRule,
    form_batch,
    padded_tokens,
)
from cortex_stream.scheduling.fair_queue import Row
from cortex_stream.scheduling.latency_model import LatencyModel
from schemas.priority import Lane
from tests.unit.scheduling.rows import NOW_S, RULE, queue_of, row

rows_of_any_kind = st.lists(
    st.builds(row, st.sampled_from(list(Lane)), st.integers(min_value=1, max_value=512)),
    max_size=80,
)
rules = st.builds(
    BatchRule,
    max_rows=st.integers(min_value=1, max_value=64),
    max_tokens=st.integers(min_value=1, max_value=4096),
)


@given(rows_of_any_kind, rules)
def test_a_batch_keeps_its_rule_and_its_company_fills_it(
    rows: list[Row[str]], rule: BatchRule
) -> None:
    queue = queue_of(*rows)

    while batch := form_batch(queue, rule, now_s=NOW_S).rows:
        head, *company = batch

        assert len(batch) <= rule.max_rows
        assert padded_tokens(batch) <= rule.max_tokens or not company  # a long head runs alone
        assert all(each.length_tokens <= head.length_tokens for each in company)
        assert all(each.length_tokens >= LEAST_FILL * head.length_tokens for each in company)


@given(rows_of_any_kind)
def test_a_batch_leaves_nobody_behind_who_would_have_fitted(rows: list[Row[str]]) -> None:
    queue = queue_of(*rows)

    while batch := form_batch(queue, RULE, now_s=NOW_S).rows:
        head = batch[0]
        part = REPLAY_PART if head.lane is Lane.REPLAY else 1
        most_rows = min(RULE.max_rows, RULE.max_tokens // head.length_tokens) // part
        full = len(batch) >= most_rows
        fitting = queue.pop_company(head, min_length_tokens=round(head.length_tokens * 0.8 + 0.5))

        if not full:
            assert fitting is None
        elif fitting is not None:
            queue.push(fitting)


def test_a_batch_of_replays_is_a_quarter_of_a_full_one() -> None:
    rule = BatchRule(max_rows=64, max_tokens=400)

    sizes = [
        len(form_batch(queue_of(*[row(lane, 10) for _ in range(64)]), rule, now_s=NOW_S).rows)
        for lane in (Lane.LOW, Lane.REPLAY)
    ]

    assert sizes == [40, 10]


def test_company_is_the_longest_that_fits() -> None:
    queue = queue_of(row(length_tokens=10, payload="head"))
    for length_tokens in (7, 8, 11, 9, 10):
        queue.push(row(length_tokens=length_tokens))

    batch = form_batch(queue, RULE, now_s=NOW_S).rows

    assert [each.length_tokens for each in batch] == [10, 10, 9, 8]


@pytest.mark.parametrize(("length_tokens", "fits"), [(7, False), (8, True)])
def test_company_fills_four_fifths_of_the_head_and_not_a_token_less(
    length_tokens: int,
    fits: bool,  # noqa: FBT001 (a parameter of the table)
) -> None:
    queue = queue_of(row(length_tokens=9), row(length_tokens=length_tokens))

    assert len(form_batch(queue, RULE, now_s=NOW_S).rows) == (2 if fits else 1)


def test_a_head_longer_than_the_token_budget_runs_alone() -> None:
    queue = queue_of(row(length_tokens=300), row(length_tokens=300))

    assert len(form_batch(queue, RULE, now_s=NOW_S).rows) == 1


def test_padded_tokens_are_rows_times_the_longest() -> None:
    assert padded_tokens([row(length_tokens=5), row(length_tokens=9)]) == 18


def test_late_rows_are_set_apart_and_take_no_place_in_the_batch() -> None:
    late = [row(deadline_s=NOW_S), row(deadline_s=NOW_S - 5)]
    live = [row(deadline_s=NOW_S + 0.001), *[row() for _ in range(7)]]
    queue = queue_of(late[0], live[0], late[1], *live[1:])

    batch = form_batch(queue, RULE, now_s=NOW_S)

    assert batch.late == late[::-1]  # the earliest deadline first
    assert batch.rows == live


def test_late_rows_cost_their_lane_nothing() -> None:
    # given: far more late critical tokens than one visit's credit, then a critical row in time
    queue = queue_of(*[row(Lane.CRITICAL, 500, deadline_s=0.0) for _ in range(50)])
    for lane in (Lane.CRITICAL, Lane.HIGH, Lane.MEDIUM, Lane.LOW):
        queue.push(row(lane, 200, lane.value))

    # when
    while not (batch := form_batch(queue, RULE, now_s=NOW_S)).rows:
        pass

    # then
    assert batch.rows[0].payload == "critical"


def test_one_call_sorts_out_a_bounded_number_of_late_rows() -> None:
    queue = queue_of(*[row(deadline_s=0.0) for _ in range(MAX_LATE_ROWS + 1)], row())

    first, second = (form_batch(queue, RULE, now_s=NOW_S) for _ in range(2))

    assert (len(first.late), len(first.rows)) == (MAX_LATE_ROWS, 0)
    assert (len(second.late), len(second.rows)) == (1, 1)


def knows(*, per_token_s: float) -> LatencyModel:
    """Return a latency model that has seen batches of every size."""
    latency = LatencyModel()
    for tokens in range(1, 101):
        latency.observe(tokens, spent_s=tokens * per_token_s)
    return latency


def test_a_batch_closes_before_it_makes_a_row_of_it_late() -> None:
    # given: a row takes 0.1 s, and the head has time for three and a half
    queue = queue_of(row(deadline_s=NOW_S + 0.35), *[row() for _ in range(6)])

    batch = form_batch(queue, RULE, now_s=NOW_S, latency=knows(per_token_s=0.01))

    assert len(batch.rows) == 3


def test_a_companion_in_a_hurry_closes_the_batch_too() -> None:
    queue = queue_of(row(), row(tenant="//b", deadline_s=NOW_S + 0.25), *[row() for _ in range(5)])

    batch = form_batch(queue, RULE, now_s=NOW_S, latency=knows(per_token_s=0.01))

    assert [run.tenant for run in batch.rows] == ["//a", "//b"]


def test_a_row_without_time_to_run_alone_is_late() -> None:
    hopeless, in_time = row(deadline_s=NOW_S + 0.09), row(deadline_s=NOW_S + 0.11)
    queue = queue_of(hopeless, in_time)

    batch = form_batch(queue, RULE, now_s=NOW_S, latency=knows(per_token_s=0.01))

    assert batch.late == [hopeless]
    assert batch.rows == [in_time]


def test_while_a_full_batch_waits_a_row_without_time_for_that_is_late_however_short() -> None:
    # given: a full batch takes 2.56 s
    short_of_time = [row(length_tokens=n, deadline_s=NOW_S + 2.5) for n in range(1, 31)]
    queue = queue_of(*short_of_time, *[row(deadline_s=NOW_S + 2.6) for _ in range(8)])

    batch = form_batch(queue, RULE, now_s=NOW_S, latency=knows(per_token_s=0.01))

    assert batch.late == short_of_time
    assert len(batch.rows) == 8


def test_a_row_longer_than_any_batch_needs_the_time_it_takes_itself() -> None:
    queue = queue_of(row(length_tokens=512, deadline_s=NOW_S + 5), *[row() for _ in range(8)])

    batch = form_batch(queue, RULE, now_s=NOW_S, latency=knows(per_token_s=0.01))

    assert [late.length_tokens for late in batch.late] == [512]


def test_where_nothing_is_in_time_the_row_with_most_time_runs_and_teaches_the_model() -> None:
    shorter, longer, over = (row(deadline_s=NOW_S + left_s) for left_s in (0.05, 0.06, -0.01))
    queue = queue_of(shorter, longer, over)

    batch = form_batch(queue, RULE, now_s=NOW_S, latency=knows(per_token_s=0.01))

    assert batch.rows == [longer]
    assert sorted(batch.late, key=id) == sorted([shorter, over], key=id)


def test_a_model_that_was_misled_learns_better_within_seconds() -> None:
    latency = knows(per_token_s=0.01)
    ran = 0
    for second in range(60):  # each has time enough in truth
        now_s = NOW_S + second
        queue = queue_of(row(deadline_s=now_s + 0.05), row(deadline_s=now_s + 0.05))
        rows = form_batch(queue, RULE, now_s=now_s, latency=latency).rows
        if rows:
            latency.observe(10 * len(rows), spent_s=0.01 * len(rows))
        ran += len(rows)

    assert ran > 100  # all but those of the first seconds


def test_where_nothing_is_in_time_one_row_a_second_runs() -> None:
    latency = knows(per_token_s=0.01)

    ran = []
    for after_s in (0.0, 0.5, 0.9, 1.0, 1.5):
        queue = queue_of(row(deadline_s=NOW_S + after_s + 0.01))
        ran.append(len(form_batch(queue, RULE, now_s=NOW_S + after_s, latency=latency).rows))

    assert ran == [1, 0, 0, 1, 0]
