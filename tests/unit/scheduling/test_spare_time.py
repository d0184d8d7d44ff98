from dataclasses import dataclass

import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.scheduling.spare_time import QUIET_S, SpareTime


@dataclass
class Model:
    """Takes note of what it is asked."""

    busy: int = 0
    replaying: bool = False
    gave_way: int = 0
    looked: int = 0

    def give_way(self) -> bool:
        self.gave_way += self.replaying
        return self.replaying

    def look_again(self) -> None:
        self.looked += 1


BUSY = [(runners, busy) for runners in (1, 2, 3, 4, 16) for busy in range(runners)]


def spare_of(*models: Model, clock: ManualClock) -> SpareTime:
    spare = SpareTime(clock=clock)
    for model in models:
        spare.join(model)
    return spare


def with_live_rows(clock: ManualClock, *, runners: int, live: float, busy: int = 0) -> SpareTime:
    """Return one that has seen live rows take a share of the runners for a while."""
    spare = spare_of(Model(busy), clock=clock)
    for _ in range(300):
        clock.advance_s(0.1)
        spare.live_came(Model(), runs=1, runners=runners)
        spare.live_ran(0.1 * runners * live)
    return spare


@pytest.mark.parametrize(("runners", "busy"), BUSY)
def test_beside_live_rows_replays_begin_where_less_than_half_is_at_work(
    runners: int, busy: int
) -> None:
    spare = with_live_rows(ManualClock(), runners=runners, live=0.2, busy=busy)

    assert spare.may_replay(runners=runners) is (busy < runners / 2)


@pytest.mark.parametrize(("runners", "busy"), BUSY)
def test_without_live_rows_replays_have_every_runner(runners: int, busy: int) -> None:
    clock = ManualClock()
    spare = with_live_rows(clock, runners=runners, live=0.9, busy=busy)
    spare.replay_ran(100, runners=runners)

    clock.advance_s(QUIET_S)

    assert spare.may_replay(runners=runners)
    assert spare_of(Model(busy), clock=clock).may_replay(runners=runners)


@pytest.mark.parametrize(("live", "rest_s"), [(0.0, 0.0), (0.2, 0.005), (0.5, 0.02), (0.75, 0.06)])
def test_replays_rest_the_longer_the_more_live_rows_take(live: float, rest_s: float) -> None:
    clock = ManualClock()
    spare = with_live_rows(clock, runners=2, live=live)

    spare.replay_ran(0.01, runners=2)

    assert spare.rest_s() == pytest.approx(rest_s, rel=0.1)
    assert spare.may_replay(runners=2) is (rest_s == 0)
    clock.advance_s(rest_s * 1.2)
    assert spare.may_replay(runners=2)


def test_live_rows_that_take_everything_let_replays_rest_until_they_are_gone() -> None:
    clock = ManualClock()
    spare = with_live_rows(clock, runners=2, live=1.5)

    spare.replay_ran(10, runners=2)

    assert spare.rest_s() == pytest.approx(QUIET_S)


@pytest.mark.parametrize(
    ("runners", "busy", "gives_way"),
    [(1, 1, True), (2, 1, True), (3, 1, True), (4, 1, False), (4, 2, True), (16, 7, False)],
)
def test_a_replay_gives_way_where_more_than_half_would_be_at_work(
    runners: int, busy: int, *, gives_way: bool
) -> None:
    model = Model(busy, replaying=True)

    spare_of(model, clock=ManualClock()).live_came(model, runs=1, runners=runners)

    assert model.gave_way == gives_way


def test_the_models_of_a_process_share_its_cores() -> None:
    clock = ManualClock()
    idle, at_work = Model(), Model(busy=1, replaying=True)
    spare = spare_of(idle, at_work, clock=clock)

    spare.live_came(idle, runs=1, runners=2)
    spare.live_ran(0.01)

    assert (idle.gave_way, at_work.gave_way) == (0, 1)
    assert not spare.may_replay(runners=2)
    assert (idle.looked, at_work.looked) == (1, 1)


@pytest.mark.parametrize(("runs", "gave_way"), [(1, [0, 1]), (2, [0, 2]), (3, [0, 3])])
def test_for_each_run_a_replay_gives_way_first_of_the_own_model(
    runs: int, gave_way: list[int]
) -> None:
    models = [Model(2, replaying=True), Model(2, replaying=True)]

    spare_of(*models, clock=ManualClock()).live_came(models[1], runs=runs, runners=4)

    assert [model.gave_way for model in models] == gave_way


def test_a_short_rest_does_not_end_a_longer_one() -> None:
    spare = with_live_rows(ManualClock(), runners=2, live=0.5)
    spare.replay_ran(0.1, runners=2)
    rest_s = spare.rest_s()

    spare.replay_ran(0.001, runners=2)

    assert spare.rest_s() == rest_s > 0.1
