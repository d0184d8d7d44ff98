import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.scheduling.spare_time import QUIET_S, SpareTime, must_give_way

BUSY = [(runners, busy) for runners in (1, 2, 3, 4, 16) for busy in range(runners)]


def with_live_rows(clock: ManualClock, *, runners: int, live: float) -> SpareTime:
    """Return one that has seen live rows take a share of the runners for a while."""
    spare = SpareTime(clock=clock)
    for _ in range(300):
        clock.advance_s(0.1)
        spare.live_came()
        spare.live_ran(0.1 * runners * live)
    return spare


@pytest.mark.parametrize(("runners", "busy"), BUSY)
def test_beside_live_rows_replays_begin_where_less_than_half_is_at_work(
    runners: int, busy: int
) -> None:
    spare = with_live_rows(ManualClock(), runners=runners, live=0.2)

    assert spare.may_replay(busy=busy, runners=runners) is (busy < runners / 2)


@pytest.mark.parametrize(("runners", "busy"), BUSY)
def test_without_live_rows_replays_have_every_runner(runners: int, busy: int) -> None:
    clock = ManualClock()
    spare = with_live_rows(clock, runners=runners, live=0.9)
    spare.replay_ran(100, runners=runners)

    clock.advance_s(QUIET_S)

    assert spare.may_replay(busy=busy, runners=runners)
    assert SpareTime(clock=clock).may_replay(busy=busy, runners=runners)


@pytest.mark.parametrize(("live", "rest_s"), [(0.0, 0.0), (0.2, 0.005), (0.5, 0.02), (0.75, 0.06)])
def test_replays_rest_the_longer_the_more_live_rows_take(live: float, rest_s: float) -> None:
    clock = ManualClock()
    spare = with_live_rows(clock, runners=2, live=live)

    spare.replay_ran(0.01, runners=2)

    assert spare.rest_s() == pytest.approx(rest_s, rel=0.1)
    assert spare.may_replay(busy=0, runners=2) is (rest_s == 0)
    clock.advance_s(rest_s * 1.2)
    assert spare.may_replay(busy=0, runners=2)


def test_live_rows_that_take_everything_let_replays_rest_until_they_are_gone() -> None:
    clock = ManualClock()
    spare = with_live_rows(clock, runners=2, live=1.5)

    spare.replay_ran(10, runners=2)

    assert spare.rest_s() == pytest.approx(QUIET_S)


def test_a_replay_gives_way_where_more_than_half_would_be_at_work() -> None:
    assert must_give_way(busy=1, runners=1)
    assert must_give_way(busy=1, runners=2)
    assert not must_give_way(busy=1, runners=4)
    assert must_give_way(busy=2, runners=4)
