from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.clock import ManualClock
from cortex_stream.scheduling.crowding import REMEMBERED_S, Crowding
from schemas.priority import Lane


def holding(crowding: Crowding, lane: Lane, **requests: int) -> ExitStack:
    """Let each tenant hold so many requests of `lane` until the stack is closed."""
    held = ExitStack()
    for tenant, count in requests.items():
        for _ in range(count):
            held.enter_context(crowding.counted(lane, tenant))
    return held


def test_a_tenant_that_holds_a_crowded_lane_has_too_many_and_the_others_have_not() -> None:
    crowding = Crowding({Lane.LOW: 100}, clock=ManualClock())

    with holding(crowding, Lane.LOW, flood=90, quiet=10):
        assert crowding.too_many(Lane.LOW, "flood")
        assert not crowding.too_many(Lane.LOW, "quiet")
        assert not crowding.too_many(Lane.LOW, "newcomer")


def test_nobody_has_too_many_while_the_lane_is_not_crowded() -> None:
    crowding = Crowding({Lane.LOW: 100}, clock=ManualClock())

    with holding(crowding, Lane.LOW, flood=89, quiet=10):
        assert not crowding.too_many(Lane.LOW, "flood")


def test_a_tenant_alone_in_its_lane_never_has_too_many() -> None:
    crowding = Crowding({Lane.LOW: 100}, clock=ManualClock())

    with (
        holding(crowding, Lane.LOW, alone=1000),
        holding(crowding, Lane.HIGH, other=1000),
    ):
        assert not crowding.too_many(Lane.LOW, "alone")


@pytest.mark.parametrize("tenants", [2, 3, 10])
def test_tenants_with_like_backlogs_are_not_told_apart(tenants: int) -> None:
    crowding = Crowding({Lane.LOW: 100}, clock=ManualClock())
    counts = {f"t{number}": 100 + number for number in range(tenants)}

    with holding(crowding, Lane.LOW, **counts):
        assert not any(crowding.too_many(Lane.LOW, tenant) for tenant in counts)


def test_a_lane_without_a_number_is_never_crowded() -> None:
    crowding = Crowding({Lane.LOW: 1}, clock=ManualClock())

    with holding(crowding, Lane.REPLAY, flood=1000, quiet=1):
        assert not crowding.too_many(Lane.REPLAY, "flood")


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 20), max_size=8))
def test_who_has_left_is_forgotten(counts: dict[str, int]) -> None:
    clock = ManualClock()
    crowding = Crowding({Lane.LOW: 1}, clock=clock)

    holding(crowding, Lane.LOW, **counts).close()
    clock.advance_s(REMEMBERED_S)
    assert not crowding.too_many(Lane.LOW, "anyone")
    holding(crowding, Lane.LOW, last=1).close()

    assert set(crowding._held[Lane.LOW]) == {"last"}
    assert crowding._in_all[Lane.LOW] == 0


def test_a_request_that_fails_leaves_too() -> None:
    crowding = Crowding({Lane.LOW: 1}, clock=ManualClock())

    with pytest.raises(KeyError), crowding.counted(Lane.LOW, "t"):
        raise KeyError

    assert crowding._in_all[Lane.LOW] == 0


def test_a_tenant_counts_for_a_while_after_its_last_request() -> None:
    clock = ManualClock()
    crowding = Crowding({Lane.LOW: 100}, clock=clock)
    holding(crowding, Lane.LOW, quiet=1).close()

    with holding(crowding, Lane.LOW, flood=100):
        clock.advance_s(REMEMBERED_S - 1)
        before = crowding.too_many(Lane.LOW, "flood")
        clock.advance_s(1)
        after = crowding.too_many(Lane.LOW, "flood")

    assert (before, after) == (True, False)


def test_a_tenant_that_comes_back_is_not_forgotten() -> None:
    clock = ManualClock()
    crowding = Crowding({Lane.LOW: 100}, clock=clock)
    holding(crowding, Lane.LOW, back=1).close()

    with holding(crowding, Lane.LOW, back=1, flood=100):
        clock.advance_s(REMEMBERED_S + 1)

        assert crowding.too_many(Lane.LOW, "flood")
