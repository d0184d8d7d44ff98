import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.kafka.progress import (
    MAX_STEP_S,
    At,
    Overdue,
    ProgressWatch,
    Standing,
    Step,
    reasons,
)

AT = ("cortex.requests.low", 3)
TIMEOUT_S = 120.0
IDLE = Standing(
    position=9, highwater=9, answered=1, fetched=False, room=True, finished=9, committed=9
)


def standing(**changes: int | bool | None) -> Standing:
    """Return an idle partition, but for `changes`."""
    fields = {name: getattr(IDLE, name) for name in Standing.__dataclass_fields__}
    return Standing(**(fields | changes))


class Watch:
    """A watch that looks every second, as the worker does."""

    def __init__(self) -> None:
        self.progress = ProgressWatch(timeout_s=TIMEOUT_S)
        self.now_s = 50.0
        self.turns = 0
        self.turning = True

    def look(
        self, partitions: dict[At, Standing] | None, oldest_outcome: int | None = None
    ) -> tuple[Overdue, ...]:
        self.turns += self.turning
        found = self.progress.look(
            partitions, turns=self.turns, oldest_outcome=oldest_outcome, now_s=self.now_s
        )
        self.now_s += 1.0
        return found

    def seconds(
        self, number: int, partition: Standing, oldest_outcome: int | None = None
    ) -> tuple[Overdue, ...]:
        """Look at one partition that stays as it is, and once more after `number` seconds."""
        found: tuple[Overdue, ...] = ()
        for _ in range(number + 1):
            found = self.look({AT: partition}, oldest_outcome)
        self.now_s -= 1.0
        return found


@pytest.mark.parametrize(
    ("partition", "step", "noticed_s"),
    [
        (standing(), Step.ANSWER, 5),
        (standing(fetched=True, highwater=12), Step.TAKE, 30),
        (standing(fetched=True, highwater=12, position=10), Step.TAKE, 30),
        (standing(fetched=True, committed=4), Step.COMMIT, 30),
        (standing(fetched=True, committed=None), Step.COMMIT, 30),
    ],
)
def test_a_step_that_is_not_made_is_noticed_at_its_time_and_not_before(
    partition: Standing, step: Step, noticed_s: int
) -> None:
    watch = Watch()

    before = watch.seconds(noticed_s - 1, partition)
    watch.now_s += 1
    after = watch.look({AT: partition})

    assert before == ()
    assert after == (Overdue(step, AT, noticed_s),)


@pytest.mark.parametrize(
    "partition",
    [
        standing(fetched=True, room=False, highwater=99),
        standing(fetched=True, finished=None, committed=None),
        standing(fetched=True, position=None),
        standing(fetched=True, highwater=None),
    ],
    ids=["a full or paused lane", "nothing taken yet", "no position yet", "no answer yet"],
)
def test_nothing_is_held_against_a_partition_that_owes_nothing(partition: Standing) -> None:
    assert Watch().seconds(1000, partition) == ()


def test_an_idle_partition_that_kafka_answers_about_is_never_overdue() -> None:
    watch = Watch()

    found = [watch.look({AT: standing(answered=answer)}) for answer in range(1000)]

    assert set(found) == {()}


def test_answers_without_records_are_no_progress_for_a_partition_that_lags() -> None:
    watch = Watch()

    found = [watch.look({AT: standing(answered=answer, highwater=12)}) for answer in range(31)]

    assert found[-1] == (Overdue(Step.TAKE, AT, 30.0),)


def test_a_stall_is_found_for_its_partition_while_all_others_get_on() -> None:
    watch = Watch()
    other = ("cortex.requests.low", 0)

    found: tuple[Overdue, ...] = ()
    for second in range(121):
        found = watch.look({AT: IDLE, other: standing(answered=second, committed=second)})

    assert found == (Overdue(Step.ANSWER, AT, 120.0),)


def test_room_that_comes_and_goes_is_not_held_against_a_lane() -> None:
    watch = Watch()
    waits = standing(fetched=True, highwater=12)

    found = {
        watch.look({AT: standing(fetched=True, highwater=12, room=False) if n % 20 == 0 else waits})
        for n in range(1000)
    }

    assert found == {()}


def test_a_process_that_was_stopped_gets_the_time_to_catch_up() -> None:
    watch = Watch()
    watch.look({AT: IDLE})

    watch.now_s += 3600
    woken = watch.seconds(2, IDLE)
    later = watch.seconds(2, IDLE)

    assert woken == ()
    assert [each.step for each in later] == [Step.ANSWER]


def test_the_oldest_outcome_must_change_within_10_s() -> None:
    watch = Watch()
    quiet = standing(fetched=True)

    waiting = watch.seconds(10, quiet, oldest_outcome=7)
    watch.now_s += 1
    next_one = watch.look({AT: quiet}, oldest_outcome=8)

    assert waiting == (Overdue(Step.OUTCOME, None, 10.0),)
    assert next_one == ()


def test_a_loop_that_hangs_is_a_stall_whatever_the_partitions_owe() -> None:
    watch = Watch()
    watch.turning = False

    found = watch.seconds(30, standing(fetched=True))

    assert found == (Overdue(Step.TURN, None, 30.0),)


def test_a_rebalance_that_does_not_end_is_a_stall_of_its_own() -> None:
    watch = Watch()

    found: tuple[Overdue, ...] = ()
    for _ in range(121):
        found = watch.look(None)

    assert found == (Overdue(Step.ASSIGN, None, 120.0),)


def test_rebalances_again_and_again_do_not_hide_a_partition_that_never_gets_on() -> None:
    watch = Watch()
    stuck = standing(fetched=True, highwater=12)

    found: tuple[Overdue, ...] = ()
    for _ in range(60):
        watch.look(None)
        found = watch.look({AT: stuck})

    assert [(each.step, each.at) for each in found] == [(Step.TAKE, AT)]
    assert found[0].for_s == 118.0


def test_a_partition_that_was_given_away_is_forgotten() -> None:
    watch = Watch()
    stuck = standing(fetched=True, highwater=12)
    watch.seconds(29, stuck)

    watch.look({})
    back = watch.seconds(29, stuck)

    assert back == ()


def test_a_short_timeout_shortens_all_that_comes_before_it() -> None:
    progress = ProgressWatch(timeout_s=8.0)

    found = [
        progress.look({AT: standing(highwater=12)}, turns=0, oldest_outcome=1, now_s=second)
        for second in range(3)
    ]

    assert found[1] == ()
    assert {each.step for each in found[2]} == {Step.ANSWER, Step.TAKE, Step.OUTCOME, Step.TURN}


def test_reasons_name_each_kind_once_with_its_first_partitions_and_the_longest_time() -> None:
    overdue = [
        Overdue(Step.ANSWER, ("a", 0), 6.4),
        *(Overdue(Step.ANSWER, ("b", number), 5.2) for number in range(4)),
        Overdue(Step.COMMIT, ("a", 1), 31.0),
        Overdue(Step.OUTCOME, None, 11.0),
    ]

    assert set(reasons(overdue)) == {
        "Kafka has not answered a fetch for 6 s (a-0, b-0, b-1 and 2 more)",
        "what is finished was not committed for 31 s (a-1)",
        "an outcome could not be delivered to Kafka for 11 s",
    }


STEPS_S = st.lists(st.floats(0.1, MAX_STEP_S), min_size=1, max_size=300)


@given(STEPS_S)
def test_it_never_fires_while_every_step_is_made_within_its_time(steps_s: list[float]) -> None:
    progress = ProgressWatch(timeout_s=TIMEOUT_S)
    now_s = 0.0

    for number, step_s in enumerate(steps_s):
        now_s += step_s
        # of the answer each look shows a new one; of the others every seventh, 14 s apart at most
        made = number // 7
        partition = standing(
            answered=number, position=made, highwater=made + 5, finished=made + 1, committed=made
        )
        found = progress.look({AT: partition}, turns=made, oldest_outcome=number, now_s=now_s)
        assert found == ()


@given(STEPS_S, st.integers(0, 299), st.booleans())
def test_it_always_fires_at_the_first_look_after_the_time(
    steps_s: list[float],
    others_until: int,
    rebalancing: bool,  # noqa: FBT001 (drawn)
) -> None:
    progress = ProgressWatch(timeout_s=TIMEOUT_S)
    stuck = standing(fetched=True, highwater=12)
    now_s = began_s = steps_s[0]
    other = ("cortex.requests.low", 0)
    expected = Step.ASSIGN if rebalancing else Step.TAKE

    found: tuple[Overdue, ...] = ()
    for number, step_s in enumerate(steps_s):
        now_s += step_s if number else 0.0
        partitions = {AT: stuck, other: standing(answered=min(number, others_until))}
        found = progress.look(
            None if rebalancing else partitions, turns=number, oldest_outcome=None, now_s=now_s
        )

        hit = [each for each in found if each.step is expected]
        waited_s = now_s - began_s
        if waited_s >= 30.001:
            assert len(hit) == 1
            assert hit[0].for_s == pytest.approx(waited_s)
        elif waited_s <= 29.999:
            assert hit == []
        assert list(found) == sorted(found, key=lambda each: -each.for_s)


@given(st.lists(st.floats(0.1, 10_000.0), min_size=1, max_size=100))
def test_however_long_each_pause_is_a_stall_is_found_within_as_many_looks(
    pauses_s: list[float],
) -> None:
    progress = ProgressWatch(timeout_s=TIMEOUT_S)
    now_s = 0.0
    found: tuple[Overdue, ...] = ()

    for turns, pause_s in enumerate([*pauses_s, *[1.0] * 30]):
        now_s += pause_s
        found = progress.look({AT: IDLE}, turns=turns, oldest_outcome=None, now_s=now_s)

    assert [each.step for each in found] == [Step.ANSWER]
