from collections import Counter
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_stream.scheduling.batcher import form_batch
from cortex_stream.scheduling.fair_queue import QUANTUM_TOKENS, WEIGHTS, FairQueue, Row
from schemas.priority import Lane
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
def test_heads_of_one_lane_leave_in_the_order_of_their_arrival(rows: list[Row[str]]) -> None:
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


@settings(max_examples=25)
@given(st.sets(st.sampled_from(LIVE), min_size=2), st.integers(min_value=20, max_value=256))
def test_lanes_with_work_get_their_weights_share(among: set[Lane], length_tokens: int) -> None:
    """The tokens per weight of two lanes never differ by more than three quanta.

    After k or k+1 visits a lane of weight w was served w * Q * visits less its credit, and its
    credit lies between w * Q and -w * Q: so per weight two lanes differ by one visit and by what
    their credits differ, 2 Q. Whoever rides as company pays for it.
    """
    queue = queue_of()
    served: Counter[Lane] = Counter()

    while sum(served.values()) < 10 * QUANTUM_TOKENS * sum(WEIGHTS[lane] for lane in among):
        keep_backlogged(queue, sorted(among), length_tokens)
        for run in form_batch(queue, RULE, now_s=NOW_S).rows:
            served[run.lane] += run.length_tokens

        per_weight = [served[lane] / WEIGHTS[lane] for lane in among]
        assert max(per_weight) - min(per_weight) <= 3 * QUANTUM_TOKENS


@given(
    lane=st.sampled_from(LIVE),
    odd_length=lengths,
    flood=st.lists(
        st.tuples(st.sampled_from(LIVE), st.integers(min_value=20, max_value=512)),
        min_size=1,
        max_size=6,
    ),
    warm_up=st.integers(min_value=0, max_value=30),
)
def test_the_oldest_row_of_a_lane_waits_for_one_round_at_most(
    lane: Lane, odd_length: int, flood: list[tuple[Lane, int]], warm_up: int
) -> None:
    """Before it, at most Q tokens per weight of every other lane run, and one batch of each.

    However often younger rows of its lane rode as company. Its own lane may have been at the end
    of a visit, whose last batch is then paid off first: one visit more of its own.
    """
    queue = queue_of()

    def top_up() -> None:
        for flooding, length_tokens in flood:
            while queue.depth(flooding) < 20:
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

    others_tokens = 0
    while True:
        batch = form_batch(queue, RULE, now_s=NOW_S).rows
        if patient in batch:
            break
        others_tokens += sum(run.length_tokens for run in batch)
        top_up()

    largest_batch = max(RULE.max_tokens, 512)
    a_round = sum(WEIGHTS[each] * QUANTUM_TOKENS + largest_batch for each in LIVE)
    assert others_tokens <= a_round + sum(WEIGHTS[each] * QUANTUM_TOKENS for each in LIVE)


def test_a_row_whose_lane_is_popular_company_is_not_starved() -> None:
    # given: low's oldest row is company for nobody, its other rows are for every head
    queue = queue_of(row(Lane.LOW, 200, "long"))
    for _ in range(400):
        queue.push(row(Lane.LOW, 10))
        queue.push(row(Lane.CRITICAL, 10))

    # when
    batches_before = 0
    while not any(run.payload for run in form_batch(queue, RULE, now_s=NOW_S).rows):
        batches_before += 1

    # then: one visit of critical, 8 * 512 tokens in batches of 80
    assert batches_before <= 8 * QUANTUM_TOKENS / 80 + 1


def test_urgent_rows_are_company_before_others_of_the_same_length() -> None:
    queue = queue_of(*[row(Lane.LOW) for _ in range(50)], *[row(Lane.CRITICAL) for _ in range(8)])

    batch = form_batch(queue, RULE, now_s=NOW_S).rows

    assert [run.lane for run in batch] == [Lane.CRITICAL] * 8


def test_urgent_rows_ride_in_the_next_batch_whoever_heads_it() -> None:
    # given: low is in the middle of its visit
    queue = queue_of(*[row(Lane.LOW) for _ in range(50)])
    form_batch(queue, RULE, now_s=NOW_S)

    # when
    queue.push(row(Lane.CRITICAL))
    batch = form_batch(queue, RULE, now_s=NOW_S).rows

    # then
    assert [run.lane for run in batch] == [Lane.LOW, Lane.CRITICAL, *[Lane.LOW] * 6]


def test_other_lanes_ride_along_where_their_own_company_is_missing() -> None:
    queue = queue_of(row(Lane.CRITICAL), row(Lane.LOW), row(Lane.HIGH), row(Lane.REPLAY))

    batch = form_batch(queue, RULE, now_s=NOW_S).rows

    assert Counter(run.lane for run in batch) == {Lane.CRITICAL: 1, Lane.HIGH: 1, Lane.LOW: 1}


def test_a_lane_rides_on_the_credit_of_its_next_visit_and_no_further() -> None:
    queue = queue_of(*[row(Lane.LOW, 100) for _ in range(20)])
    critical = []

    rides_tokens = 0
    for _ in range(20):
        queue.push(row(Lane.CRITICAL, 100))
        critical.append(form_batch(queue, RULE, now_s=NOW_S).rows)
        rides_tokens += sum(run.length_tokens for run in critical[-1][1:])

    assert all(batch[0].lane is Lane.CRITICAL for batch in critical)  # its visit is not over
    assert rides_tokens == QUANTUM_TOKENS // 100 * 100


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


def test_an_idle_lane_saves_no_credit_up() -> None:
    # given: low alone is served for many rounds
    queue = queue_of()
    for _ in range(200):
        queue.push(row(Lane.LOW, 100))
        form_batch(queue, RULE, now_s=NOW_S)

    # when all lanes have work, then critical does not make up for the time when it had none
    served: Counter[Lane] = Counter()
    while sum(served.values()) < 15 * QUANTUM_TOKENS * 4:
        keep_backlogged(queue, LIVE, 100)
        for run in form_batch(queue, RULE, now_s=NOW_S).rows:
            served[run.lane] += run.length_tokens
    assert served[Lane.LOW] >= 2 * QUANTUM_TOKENS


def test_the_lateness_of_a_row_is_the_time_since_its_deadline() -> None:
    assert row(deadline_s=990.0).late_s(now_s=NOW_S) == 10.0
    assert row(deadline_s=1000.5).late_s(now_s=NOW_S) == -0.5
    assert row().late_s(now_s=NOW_S) == float("-inf")


def test_a_row_costs_little_with_ten_thousand_waiting() -> None:
    queue = queue_of(*[row(LIVE[n % 4], 3 + n * 7919 % 250) for n in range(10_000)])

    began_s = process_time()
    rows = [run for _ in range(1000) for run in form_batch(queue, RULE, now_s=NOW_S).rows]
    for run in rows:
        queue.push(run)
    spent_s = process_time() - began_s

    assert len(queue) == 10_000
    assert spent_s / len(rows) < 100e-6  # 10 µs measured; a linear search would take 500


def test_a_row_comes_and_goes_as_cheaply_with_a_hundred_thousand_waiting() -> None:
    queue = queue_of(*[row(Lane.LOW, 3 + n * 7919 % 250) for n in range(100_000)])
    shortest = [row(Lane.LOW, 3) for _ in range(2000)]  # where a sorted list of rows costs most

    began_s = process_time()
    for each in shortest:
        queue.push(each)
    for each in shortest:
        queue.discard(each)
    spent_s = process_time() - began_s

    assert queue.depth(Lane.LOW) == 100_000
    assert spent_s / len(shortest) < 20e-6  # 1 µs measured; a sorted list of rows takes 40
