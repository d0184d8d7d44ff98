import gc
import statistics
import tracemalloc
from collections import Counter
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_stream.deadline import Deadline
from cortex_stream.scheduling.batcher import REPLAY_PART, BatchRule, form_batch
from cortex_stream.scheduling.fair_queue import WEIGHTS, FairQueue, Row
from schemas.priority import Lane
from tests.slowness import slowness
from tests.unit.scheduling.rows import NOW_S, RULE, queue_of, row

LIVE = list(WEIGHTS)
lanes = st.sampled_from(list(Lane))
lengths = st.integers(min_value=1, max_value=512)
contents = st.lists(st.builds(row, lanes, lengths), max_size=60)


def drained(queue: FairQueue[str]) -> list[list[Row[str]]]:
    batches = []
    while rows := form_batch(queue, RULE, now_s=NOW_S).rows:
        batches.append(rows)
    return batches


def keep_backlogged(queue: FairQueue[str], among: list[Lane], length_tokens: int) -> None:
    for lane in among:
        while queue.depth(lane) < 20:
            queue.push(row(lane, length_tokens))


def test_an_empty_queue_gives_nothing() -> None:
    queue = queue_of()

    assert queue.pop_head() is None
    assert len(queue) == 0
    assert queue.oldest_s(Lane.HIGH) is None


@given(contents)
def test_every_pushed_row_comes_out_exactly_once_and_the_queue_works_on_while_rows_wait(
    rows: list[Row[str]],
) -> None:
    queue = queue_of(*rows)

    batches = drained(queue)

    served = [served for batch in batches for served in batch]
    assert Counter(map(id, served)) == Counter(map(id, rows))
    assert len(queue) == 0
    assert all(queue.depth(lane) == 0 for lane in Lane)


@given(contents)
def test_heads_of_one_tenant_leave_in_the_order_of_their_arrival(rows: list[Row[str]]) -> None:
    queue = queue_of(*rows)

    heads = []
    while (head := queue.pop_head()) is not None:
        queue.charge(head)
        heads.append(head)

    for lane in Lane:
        in_order = [waiting for waiting in rows if waiting.lane is lane]
        assert [head for head in heads if head.lane is lane] == in_order


@given(contents)
def test_replays_are_served_only_when_no_other_lane_waits(rows: list[Row[str]]) -> None:
    queue = queue_of(*rows)

    while batch := form_batch(queue, RULE, now_s=NOW_S).rows:
        replays = [served.lane is Lane.REPLAY for served in batch]

        assert all(replays) or not any(replays)
        if any(replays):
            assert not any(queue.depth(lane) for lane in LIVE)


@settings(max_examples=50)
@given(
    among=st.lists(st.sampled_from(LIVE), min_size=2, max_size=2, unique=True),
    others=st.sets(st.sampled_from(LIVE)),
    length_of=st.lists(st.integers(min_value=20, max_value=512), min_size=4, max_size=4),
    skipped=st.integers(min_value=0, max_value=60),
    window=st.integers(min_value=1, max_value=200),
)
def test_no_lane_with_work_gets_less_than_its_share_minus_one_batch_over_any_window(
    among: list[Lane], others: set[Lane], length_of: list[int], skipped: int, window: int
) -> None:
    """`used` of a lane lies between the least of all and one batch per weight above it.

    As the head of a batch it starts from the least and is charged a batch at most; as company it
    rides while it is ahead by half a batch, with rows of half a batch at most.
    """
    queue = queue_of()

    def serve() -> list[Row[str]]:
        for lane in {*among, *others}:
            while queue.depth(lane) < 20:
                queue.push(row(lane, length_of[LIVE.index(lane)]))
        return form_batch(queue, RULE, now_s=NOW_S).rows

    for _ in range(skipped):
        serve()
    served: Counter[Lane] = Counter()
    for _ in range(window):
        for run in serve():
            served[run.lane] += run.length_tokens

    one, other = among
    batch_tokens = max(RULE.max_tokens, *length_of)
    apart = abs(served[one] / WEIGHTS[one] - served[other] / WEIGHTS[other])
    assert apart <= batch_tokens / WEIGHTS[one] + batch_tokens / WEIGHTS[other]


@given(
    lane=st.sampled_from(LIVE),
    odd_length=lengths,
    flood=st.lists(
        st.tuples(st.sampled_from(LIVE), st.integers(min_value=20, max_value=512)),
        min_size=1,
        max_size=6,
    ),
    depth=st.integers(min_value=1, max_value=20),
    warm_up=st.integers(min_value=0, max_value=30),
)
def test_the_oldest_row_of_a_lane_waits_for_one_round_at_most(
    lane: Lane, odd_length: int, flood: list[tuple[Lane, int]], depth: int, warm_up: int
) -> None:
    """Its lane is at most one batch per weight ahead; until the others are there too, they run.

    However often younger rows of its lane ride as company.
    """
    queue = queue_of()

    def top_up() -> None:
        for flooding, length_tokens in flood:
            while queue.depth(flooding) < depth:
                queue.push(row(flooding, length_tokens))

    top_up()
    for _ in range(warm_up):
        form_batch(queue, RULE, now_s=NOW_S)
        top_up()
    for _ in range(queue.depth(lane)):  # what waited before it is not what is measured
        oldest = next(iter(queue._lanes[lane].waiting))
        queue.discard(oldest)
    patient = row(lane, odd_length)
    queue.push(patient)

    served: Counter[Lane] = Counter()
    while patient not in (batch := form_batch(queue, RULE, now_s=NOW_S).rows):
        for run in batch:
            served[run.lane] += run.length_tokens
        top_up()

    batch_tokens = max(RULE.max_tokens, 512)
    for other in LIVE:
        assert served[other] <= batch_tokens * WEIGHTS[other] / WEIGHTS[lane] + batch_tokens


def test_a_row_whose_lane_is_popular_company_is_not_starved() -> None:
    # given: low's oldest row is company for nobody, its other rows are for every head
    queue = queue_of(row(Lane.LOW, 200, "long"))
    for _ in range(400):
        queue.push(row(Lane.LOW, 10))
        queue.push(row(Lane.CRITICAL, 10))

    # when
    critical_tokens = 0
    while not (batch := form_batch(queue, RULE, now_s=NOW_S).rows)[0].payload:
        critical_tokens += sum(run.length_tokens for run in batch if run.lane is Lane.CRITICAL)

    assert critical_tokens <= RULE.max_tokens * 8 + RULE.max_tokens


def test_of_one_tenant_the_earliest_deadline_goes_first_then_the_oldest() -> None:
    queue = queue_of(
        row(payload="old"),
        row(payload="relaxed", deadline_s=2000.0),
        row(payload="urgent", deadline_s=1001.0),
        row(payload="new"),
        row(payload="as urgent, later", deadline_s=1001.0),
    )

    heads = [head.payload for head in iter(queue.pop_head, None)]

    assert heads == ["urgent", "as urgent, later", "relaxed", "old", "new"]


@pytest.mark.parametrize("done", range(10))
def test_a_flooding_tenant_delays_another_by_two_batches(done: int) -> None:
    # given: of each quantum of 256 tokens the flood has used another part
    queue = queue_of(*[row(tenant="//flood", length_tokens=30) for _ in range(1000)])
    for _ in range(done):
        form_batch(queue, RULE, now_s=NOW_S)

    # when
    queue.push(row(tenant="//quiet", length_tokens=200))

    # then
    heads = [form_batch(queue, RULE, now_s=NOW_S).rows[0].tenant for _ in range(3)]
    assert "//quiet" in heads[:2]


def test_whoever_had_a_long_text_has_its_next_in_turn_with_the_others() -> None:
    # given: twenty with a short text each, and one that has just had a long one
    queue = queue_of(row(tenant="//long", length_tokens=250))
    form_batch(queue, RULE, now_s=NOW_S)
    queue.push(row(tenant="//long", length_tokens=200))
    for number in range(20):
        queue.push(row(tenant=f"//{number}", length_tokens=100 + number))

    # when
    heads = [form_batch(queue, RULE, now_s=NOW_S).rows[0].tenant for _ in range(3)]

    # then
    assert "//long" in heads


@settings(max_examples=50)
@given(
    length_of=st.lists(st.integers(min_value=20, max_value=300), min_size=2, max_size=6),
    skipped=st.integers(min_value=0, max_value=40),
    window=st.integers(min_value=1, max_value=100),
)
def test_tenants_of_a_lane_get_equal_shares_over_any_window(
    length_of: list[int], skipped: int, window: int
) -> None:
    queue = queue_of()
    served: Counter[str] = Counter()

    for turn in range(skipped + window):
        for number, length_tokens in enumerate(length_of):
            waiting = queue._lanes[Lane.LOW].tenants.get(str(number))
            for _ in range(20 - (waiting.count if waiting else 0)):
                queue.push(row(Lane.LOW, length_tokens, tenant=str(number)))
        for run in form_batch(queue, RULE, now_s=NOW_S).rows:
            if turn >= skipped:
                served[run.tenant] += run.length_tokens

    shares = [served[str(number)] for number in range(len(length_of))]
    assert max(shares) - min(shares) <= 2 * 4 * max(RULE.max_tokens, *length_of)


def test_tenants_of_one_length_take_turns_as_company() -> None:
    queue = queue_of(row(tenant="//head"))
    for tenant in ("//a", "//b", "//c"):
        for _ in range(10):
            queue.push(row(tenant=tenant))

    company = form_batch(queue, RULE, now_s=NOW_S).rows[1:]

    assert Counter(run.tenant for run in company) == {"//a": 3, "//b": 2, "//c": 2}


def test_a_tenant_that_has_ridden_for_two_batches_is_no_obstacle_to_others() -> None:
    # given
    queue = queue_of(*[row(tenant="//rider", length_tokens=64) for _ in range(20)])
    queue.push(row(tenant="//other", length_tokens=60))
    head = row(tenant="//head", length_tokens=64)

    # when
    riders = []
    while (companion := queue.pop_company(head, min_length_tokens=50)) is not None:
        queue.charge_company(companion, head=head)
        riders.append(companion.tenant)

    # then
    assert riders == ["//rider"] * 9 + ["//other"]  # 9 rows: just over two batches of 256 tokens


def test_a_row_that_comes_back_waits_once() -> None:
    queue = queue_of(row(payload="other"))
    returning = row(payload="returning")
    for _ in range(20):
        queue.push(returning)
        assert queue.discard(returning)
    queue.push(returning)

    assert [head.payload for head in iter(queue.pop_head, None)] == ["other", "returning"]


@given(st.lists(st.integers(min_value=0, max_value=50), max_size=200))
def test_rows_that_left_by_another_way_are_not_kept(taken: list[int]) -> None:
    """Company is taken from the middle of its tenant's rows: the entries there must not pile up."""
    queue = queue_of(row(Lane.LOW, 500, deadline_s=5000.0))
    for number in taken:
        queue.push(row(Lane.LOW, 10 + number))
        head = row(Lane.LOW, 10 + number)
        assert queue.pop_company(head, min_length_tokens=1) is not None

    [rows] = queue._lanes[Lane.LOW].tenants.values()
    assert len(rows._heap) <= 2 * rows.count + 8


def test_urgent_rows_are_company_before_others_of_the_same_length() -> None:
    queue = queue_of(*[row(Lane.LOW) for _ in range(50)], *[row(Lane.CRITICAL) for _ in range(8)])

    batch = form_batch(queue, RULE, now_s=NOW_S).rows

    assert [run.lane for run in batch] == [Lane.CRITICAL] * 8


def test_an_urgent_row_that_arrives_heads_the_next_batch() -> None:
    # given: low alone has been served for long
    queue = queue_of(*[row(Lane.LOW) for _ in range(50)])
    for _ in range(4):
        form_batch(queue, RULE, now_s=NOW_S)

    # when
    queue.push(row(Lane.CRITICAL))
    batch = form_batch(queue, RULE, now_s=NOW_S).rows

    # then
    assert batch[0].lane is Lane.CRITICAL


def test_other_lanes_ride_along_where_their_own_company_is_missing() -> None:
    queue = queue_of(row(Lane.CRITICAL), row(Lane.LOW), row(Lane.HIGH), row(Lane.REPLAY))

    batch = form_batch(queue, RULE, now_s=NOW_S).rows

    assert Counter(run.lane for run in batch) == {Lane.CRITICAL: 1, Lane.HIGH: 1, Lane.LOW: 1}


def test_a_lane_that_could_always_ride_is_still_served_as_the_head() -> None:
    """It rides for half a batch; then its turn comes, once others have used as much."""
    queue = queue_of(*[row(Lane.LOW, 100) for _ in range(20)])

    batches: list[list[Row[str]]] = []
    while not batches or batches[-1][0].lane is Lane.CRITICAL:
        queue.push(row(Lane.CRITICAL, 100))
        batches.append(form_batch(queue, RULE, now_s=NOW_S).rows)

    rides = [run.lane for batch in batches[:-1] for run in batch[1:]]
    assert rides == [Lane.LOW, Lane.LOW]
    assert len(batches) - 1 <= 1 + 200 * WEIGHTS[Lane.CRITICAL] / 100


def test_of_equally_long_company_the_oldest_goes_first() -> None:
    rows = [row(payload=str(number)) for number in range(12)]
    queue = queue_of(*rows)

    batch = form_batch(queue, RULE, now_s=NOW_S).rows

    assert [run.payload for run in batch] == [str(number) for number in range(8)]


@given(contents, lengths, st.data())
def test_company_is_the_oldest_of_the_longest_that_fit_whatever_left_before(
    rows: list[Row[str]], length_tokens: int, data: st.DataObject
) -> None:
    queue = queue_of(*rows)
    head = row(Lane.REPLAY, length_tokens)
    waiting = [each for each in rows if each.lane is Lane.REPLAY]
    for gone in data.draw(st.sets(st.sampled_from(waiting)) if waiting else st.just(set())):
        queue.discard(gone)
        waiting.remove(gone)

    fitting = [each for each in waiting if each.length_tokens <= length_tokens]
    while fitting:
        best = max(fitting, key=lambda each: each.length_tokens)  # the first of equals
        assert queue.pop_company(head, min_length_tokens=1) is best
        fitting.remove(best)
    assert queue.pop_company(head, min_length_tokens=1) is None


@given(contents, st.data())
def test_a_discarded_row_is_gone_wherever_it_waits(
    rows: list[Row[str]], data: st.DataObject
) -> None:
    queue = queue_of(*rows)
    unwanted = data.draw(st.sets(st.sampled_from(rows)) if rows else st.just(set()))

    assert all(queue.discard(each) for each in unwanted)
    assert not any(queue.discard(each) for each in unwanted)

    served = [run for batch in drained(queue) for run in batch]
    assert set(served) == set(rows) - unwanted


@given(st.lists(st.booleans(), max_size=40))
def test_oldest_s_is_the_arrival_of_the_longest_waiting_row(pushes: list[bool]) -> None:
    queue, waiting = queue_of(), []

    for moment, push in enumerate(pushes):
        if push:
            waiting.append(row(Lane.LOW, 10, enqueued_s=float(moment)))
            queue.push(waiting[-1])
        elif waiting:
            queue.discard(waiting.pop(moment % len(waiting)))

        assert queue.oldest_s(Lane.LOW) == (waiting[0].enqueued_s if waiting else None)
        assert queue.depth(Lane.LOW) == len(queue) == len(waiting)


def test_a_row_that_did_not_run_costs_its_lane_nothing() -> None:
    queue = queue_of(*[row(Lane.LOW, 400) for _ in range(10)], row(Lane.CRITICAL, 400))

    heads = []
    while (head := queue.pop_head()) is not None:  # never charged: the turn never passes on
        heads.append(head.lane)

    assert heads == [Lane.CRITICAL, *[Lane.LOW] * 10]


def test_a_rest_saves_nothing_up_and_work_alone_is_not_held_against_a_lane() -> None:
    # given: low alone is served for long
    queue = queue_of()
    for _ in range(200):
        queue.push(row(Lane.LOW, 100))
        form_batch(queue, RULE, now_s=NOW_S)

    # when all lanes have work, then critical does not make up for the time when it had none
    served: Counter[Lane] = Counter()
    while sum(served.values()) < 15 * RULE.max_tokens * 2:
        keep_backlogged(queue, LIVE, 100)
        for run in form_batch(queue, RULE, now_s=NOW_S).rows:
            served[run.lane] += run.length_tokens
    assert served[Lane.LOW] >= RULE.max_tokens


def test_the_lateness_of_a_row_is_the_time_since_its_deadline() -> None:
    assert row(deadline_s=990.0).late_s(now_s=NOW_S) == 10.0
    assert row(deadline_s=1000.5).late_s(now_s=NOW_S) == -0.5
    assert row().late_s(now_s=NOW_S) == float("-inf")


@pytest.mark.alone
@pytest.mark.no_cover  # tracing costs ten times what is measured
def test_a_row_costs_little_with_ten_thousand_waiting() -> None:
    queue = queue_of(*[row(LIVE[n % 4], 3 + n * 7919 % 250) for n in range(10_000)])

    began_s = process_time()
    rows = [run for _ in range(1000) for run in form_batch(queue, RULE, now_s=NOW_S).rows]
    for run in rows:
        queue.push(run)
    spent_s = process_time() - began_s

    assert len(queue) == 10_000
    assert spent_s / len(rows) < 100e-6  # 10 µs measured; a linear search would take 500


@pytest.mark.alone
@pytest.mark.no_cover  # tracing costs ten times what is measured
def test_a_row_comes_and_goes_as_cheaply_with_a_hundred_thousand_waiting() -> None:
    queue = queue_of(*[row(Lane.LOW, 3 + n * 7919 % 250) for n in range(100_000)])
    shortest = [row(Lane.LOW, 3) for _ in range(2000)]  # where a sorted list of rows costs most

    gc.disable()  # walking over a hundred thousand rows would cost more, and a worker hardly does
    began_s = process_time()
    for each in shortest:
        queue.push(each)
    for each in shortest:
        queue.discard(each)
    spent_s = process_time() - began_s
    gc.enable()

    assert queue.depth(Lane.LOW) == 100_000
    assert spent_s / len(shortest) < 20e-6  # 1 µs measured; a sorted list of rows takes 40


@pytest.mark.alone
@pytest.mark.no_cover  # tracing costs ten times what is measured
def test_a_hundred_thousand_waiting_rows_cost_little_time_and_memory() -> None:
    rows = [
        row(LIVE[n % 4], 3 + n * 7919 % 250, tenant=f"//{n % 100}", deadline_s=NOW_S + 1 + n % 97)
        for n in range(100_000)
    ]
    gc.disable()
    tracemalloc.start()
    queue = queue_of(*rows)
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(queue) == len(rows)
    # Each beside its own moment's slowness: this machine may do half of its work seconds later.
    tries = [_spent_s(rows) / slowness() for _ in range(5)]
    gc.enable()

    assert statistics.median(tries) / len(rows) < 20e-6  # 14 µs measured
    assert held_bytes / len(rows) < 1500  # 285 measured


def _spent_s(rows: list[Row[str]]) -> float:
    """Return what it takes to queue all of `rows` and to take them out in batches."""
    began_s = process_time()
    queue = queue_of(*rows)
    ran = 0
    while batch := form_batch(queue, RULE, now_s=NOW_S).rows:
        ran += len(batch)
    assert ran == len(rows)
    return process_time() - began_s


def test_tenants_take_turns_in_replays_too() -> None:
    queue = queue_of(*[row(Lane.REPLAY, 100, tenant="//flood") for _ in range(20)])
    for _ in range(3):
        queue.push(row(Lane.REPLAY, 100, tenant="//quiet"))

    rule = BatchRule(max_rows=8, max_tokens=RULE.max_tokens * REPLAY_PART)
    first = [run.tenant for _ in range(3) for run in form_batch(queue, rule, now_s=NOW_S).rows]

    assert first.count("//quiet") == 3


def test_rides_with_its_own_rows_of_another_lane_keep_no_row_of_a_tenant_from_its_turn() -> None:
    # given: A's critical rows take A's short low ones along; B always has a low row, too
    queue = queue_of(long := row(Lane.LOW, 200, tenant="//a"))
    ran: list[Row[str]] = []
    queue.push(row(Lane.LOW, 10, tenant="//b"))
    for _ in range(1500):
        queue.push(row(Lane.CRITICAL, 10, tenant="//a"))
        while queue.depth(Lane.LOW) < 8:
            queue.push(row(Lane.LOW, 10, tenant="//a"))
        batch = form_batch(queue, RULE, now_s=NOW_S).rows
        for again in batch:
            if again.tenant == "//b":
                queue.push(row(Lane.LOW, 10, tenant="//b"))
        ran += batch

    assert long in ran


# ---- who is before a row that comes now -----------------------------------------------------------


def ahead(
    queue: FairQueue[str],
    *,
    tenant: str = "//a",
    due_s: float = 2.0,
    lane: Lane = Lane.LOW,
    most: float = 10_000,
) -> float:
    deadline = Deadline(NOW_S + due_s)
    return queue.tokens_ahead(
        lane, tenant=tenant, deadline=deadline, now_s=NOW_S, token_s=1e-6, most=most
    )


def low(due_s: float | None, *, tenant: str = "//a", tokens: int = 10) -> Row[str]:
    deadline_s = None if due_s is None else NOW_S + due_s
    return row(Lane.LOW, tokens, tenant=tenant, deadline_s=deadline_s)


def test_of_its_tenant_those_that_are_due_earlier_are_before_it() -> None:
    queue = queue_of(low(1.0), low(1.5, tokens=7), low(3.0), low(None))

    assert ahead(queue, due_s=0.5) == 0
    assert ahead(queue) == 17
    assert ahead(queue, lane=Lane.HIGH) == 0


def test_of_each_other_tenant_as_many_tokens_are_before_it_as_far_as_it_has_them() -> None:
    queue = queue_of(
        *(low(1.0) for _ in range(3)),
        *(low(None, tenant="//long", tokens=250) for _ in range(10)),
        low(8, tenant="//short"),
    )

    assert ahead(queue) == 30 + 30 + 10
    assert ahead(queue, tenant="//short", due_s=9.0) == 10 + 10 + 10
    assert ahead(queue, tenant="//new", due_s=9.0) == 0


def test_many_small_tenants_count_for_what_they_have_and_a_flood_for_one_share() -> None:
    queue = queue_of(
        *(low(1.0) for _ in range(40)),
        *(low(None, tenant="//flood") for _ in range(3000)),
        *(low(1.0, tenant=f"//{n}") for n in range(30)),
    )

    assert ahead(queue) == 10 * (40 + 40 + 30)


def test_it_is_not_counted_further_than_anybody_asks() -> None:
    queue = queue_of(*(low(1.0, tenant=f"//{n}") for n in range(1000)))

    assert ahead(queue, tenant="//3", most=100) == 110


def test_who_has_gone_is_before_nobody() -> None:
    gone, left = low(1.0), low(1.0)
    queue = queue_of(gone, left)

    assert queue.discard(gone)
    assert ahead(queue) == 10
    assert queue.discard(left)
    assert ahead(queue) == 0
