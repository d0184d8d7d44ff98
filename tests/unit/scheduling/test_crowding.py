from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.clock import ManualClock
from cortex_stream.scheduling.crowding import REMEMBERED_S, Crowding
from schemas.priority import Lane

TOPIC, IDLE = "cortex.requests.low", "cortex.requests.high"
WEIGHT = 14_000


def holding(crowding: Crowding, lane: Lane, **requests: int) -> ExitStack:
    """Let each tenant hold so many requests of `lane` until the stack is closed."""
    held = ExitStack()
    for tenant, count in requests.items():
        for _ in range(count):
            held.enter_context(crowding.counted(lane, tenant, WEIGHT))
    return held


def test_a_tenant_that_holds_a_crowded_lane_has_too_many_and_the_others_have_not() -> None:
    crowding = Crowding(lambda topic: topic == TOPIC, clock=ManualClock())

    with holding(crowding, Lane.LOW, flood=90, quiet=10):
        assert crowding.must_wait(Lane.LOW, "flood", topic=TOPIC)
        assert not crowding.must_wait(Lane.LOW, "quiet", topic=TOPIC)
        assert not crowding.must_wait(Lane.LOW, "newcomer", topic=TOPIC)


def test_nobody_has_too_many_while_the_topic_is_not_crowded() -> None:
    crowding = Crowding(lambda topic: topic == TOPIC, clock=ManualClock())

    with holding(crowding, Lane.LOW, flood=89, quiet=10):
        assert not crowding.must_wait(Lane.LOW, "flood", topic=IDLE)


def test_a_few_heavy_requests_hold_more_of_a_lane_than_many_light_ones() -> None:
    crowding = Crowding(lambda topic: topic == TOPIC, clock=ManualClock())

    with (
        holding(crowding, Lane.LOW, light=20),
        crowding.counted(Lane.LOW, "heavy", 50 * WEIGHT),
        crowding.counted(Lane.LOW, "heavy", 50 * WEIGHT),
    ):
        assert crowding.must_wait(Lane.LOW, "heavy", topic=TOPIC)
        assert not crowding.must_wait(Lane.LOW, "light", topic=TOPIC)


def test_a_few_requests_are_no_flood_however_many_tenants_there_are() -> None:
    crowding = Crowding(lambda topic: topic == TOPIC, clock=ManualClock())
    quiet = {f"quiet-{number}": 1 for number in range(399)}

    with holding(crowding, Lane.LOW, flood=396, few=6, more=7, **quiet):  # 1/128 of 808 is 6.3
        assert not crowding.must_wait(Lane.LOW, "few", topic=TOPIC)
        assert crowding.must_wait(Lane.LOW, "more", topic=TOPIC)
        assert crowding.must_wait(Lane.LOW, "flood", topic=TOPIC)


@pytest.mark.parametrize(("topic", "waits"), [(TOPIC, True), (IDLE, False)])
def test_who_lowered_itself_makes_room_in_a_crowded_topic(topic: str, waits: bool) -> None:  # noqa: FBT001
    crowding = Crowding(lambda topic: topic == TOPIC, clock=ManualClock())

    found = crowding.must_wait(Lane.LOW, "alone", topic=topic, topic_lane=Lane.CRITICAL)

    assert found is waits
    assert not crowding.must_wait(Lane.LOW, "alone", topic=topic, topic_lane=Lane.LOW)


def test_a_tenant_alone_in_its_lane_never_has_too_many() -> None:
    crowding = Crowding(lambda topic: topic == TOPIC, clock=ManualClock())

    with (
        holding(crowding, Lane.LOW, alone=1000),
        holding(crowding, Lane.HIGH, other=1000),
    ):
        assert not crowding.must_wait(Lane.LOW, "alone", topic=TOPIC)


@pytest.mark.parametrize("tenants", [2, 3, 10])
def test_tenants_with_like_backlogs_are_not_told_apart(tenants: int) -> None:
    crowding = Crowding(lambda topic: topic == TOPIC, clock=ManualClock())
    counts = {f"t{number}": 100 + number for number in range(tenants)}

    with holding(crowding, Lane.LOW, **counts):
        assert not any(crowding.must_wait(Lane.LOW, tenant, topic=TOPIC) for tenant in counts)


def test_replays_never_wait_for_others() -> None:
    crowding = Crowding(lambda _: True, clock=ManualClock())

    with holding(crowding, Lane.REPLAY, flood=1000, quiet=1):
        assert not crowding.must_wait(Lane.REPLAY, "flood", topic=TOPIC)


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 20), max_size=8))
def test_who_has_left_is_forgotten(counts: dict[str, int]) -> None:
    clock = ManualClock()
    crowding = Crowding(lambda topic: topic == TOPIC, clock=clock)

    holding(crowding, Lane.LOW, **counts).close()
    clock.advance_s(REMEMBERED_S)
    assert not crowding.must_wait(Lane.LOW, "anyone", topic=TOPIC)
    holding(crowding, Lane.LOW, last=1).close()

    assert set(crowding._held[Lane.LOW]) == {"last"}
    assert crowding._in_all[Lane.LOW] == 0


def test_a_request_that_fails_leaves_too() -> None:
    crowding = Crowding(lambda topic: topic == TOPIC, clock=ManualClock())

    with pytest.raises(KeyError), crowding.counted(Lane.LOW, "t", WEIGHT):
        raise KeyError

    assert crowding._in_all[Lane.LOW] == 0


def test_a_tenant_counts_for_a_while_after_its_last_request() -> None:
    clock = ManualClock()
    crowding = Crowding(lambda topic: topic == TOPIC, clock=clock)
    holding(crowding, Lane.LOW, quiet=1).close()

    with holding(crowding, Lane.LOW, flood=100):
        clock.advance_s(REMEMBERED_S - 1)
        before = crowding.must_wait(Lane.LOW, "flood", topic=TOPIC)
        clock.advance_s(1)
        after = crowding.must_wait(Lane.LOW, "flood", topic=TOPIC)

    assert (before, after) == (True, False)


def test_a_tenant_that_comes_back_is_not_forgotten() -> None:
    clock = ManualClock()
    crowding = Crowding(lambda topic: topic == TOPIC, clock=clock)
    holding(crowding, Lane.LOW, back=1).close()

    with holding(crowding, Lane.LOW, back=1, flood=100):
        clock.advance_s(REMEMBERED_S + 1)

        assert crowding.must_wait(Lane.LOW, "flood", topic=TOPIC)
