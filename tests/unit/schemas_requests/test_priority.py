import pytest

from schemas.priority import Lane, Priority, effective_lane


@pytest.mark.parametrize("lane", Lane)
@pytest.mark.parametrize("priority", [None, *Priority])
def test_the_lane_is_the_ceiling_and_priority_may_only_lower_it(
    lane: Lane, priority: Priority | None
) -> None:
    urgency = list(Lane)

    effective = effective_lane(lane=lane, priority=priority)

    assert urgency.index(effective) >= urgency.index(lane)
    if priority is None or lane is Lane.REPLAY:
        assert effective is lane
    elif urgency.index(Lane(priority.value)) > urgency.index(lane):
        assert effective.value == priority.value
