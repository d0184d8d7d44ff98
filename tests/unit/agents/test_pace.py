"""When a fetch waits for many records, and how long."""

from collections.abc import Mapping

import pytest

from agents.pace import Pace

SOON = (1, 100)


def many(wait_ms: int) -> tuple[int, int]:
    return 1 << 20, wait_ms


def fetch_of(per_s: Mapping[str, int], held: Mapping[str, int]) -> tuple[int, int]:
    """Return what a fetch waits for after a second of so many records a second of each topic."""
    pace = Pace(now_s=0.0)
    for poll in range(1, 101):
        for topic, records in per_s.items():
            if records >= 100 or poll % (100 // records) == 0:
                pace.took(topic, max(1, records // 100), held=held.get(topic, 0))
        pace.look(now_s=poll / 100)
    return pace.fetch


@pytest.mark.parametrize(
    ("per_s", "held", "expected"),
    [
        pytest.param({"low": 800}, {"low": 1600}, many(50), id="an overload"),
        pytest.param(
            {"low": 1000, "high": 100}, {"low": 2000, "high": 2}, many(20), id="few are quick"
        ),
        pytest.param(
            {"low": 800, "medium": 100}, {"low": 1600, "medium": 5}, many(5), id="many are quick"
        ),
        pytest.param({"low": 100}, {"low": 3000}, many(50), id="a full lane of which little goes"),
        pytest.param({"low": 800}, {"low": 320}, many(40), id="much, and 400 ms to wait"),
        pytest.param({"medium": 200}, {"medium": 16}, many(8), id="half loaded: 80 ms, 8 to wait"),
        pytest.param({"medium": 100}, {"medium": 2}, SOON, id="idle: none would come"),
        pytest.param(
            {"low": 200, "critical": 20}, {"low": 3000, "critical": 1}, many(5), id="one is urgent"
        ),
        pytest.param({"low": 10_000}, {"low": 200}, many(2), id="a fast device"),
        pytest.param({"low": 10_000}, {"low": 90}, SOON, id="a faster one: less than 1 ms"),
        pytest.param(
            {"high": 1000}, {"high": 15, "retries": 300}, many(1), id="retries that wait are others"
        ),
        pytest.param({}, {"low": 3000}, SOON, id="nothing comes in"),
    ],
)
def test_a_fetch_waits_for_a_tenth_of_a_stay_if_that_brings_a_record(
    per_s: Mapping[str, int], held: Mapping[str, int], expected: tuple[int, int]
) -> None:
    assert fetch_of(per_s, held) == expected


def test_what_came_in_before_is_forgotten_after_half_a_second() -> None:
    pace = Pace(now_s=0.0)
    pace.took("low", 800, held=1600)
    pace.look(now_s=0.6)
    assert pace.fetch == many(50)

    pace.look(now_s=1.0)
    assert pace.fetch == many(50)
    pace.look(now_s=1.2)
    assert pace.fetch == SOON
