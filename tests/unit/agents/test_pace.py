"""When a fetch waits for many records."""

from collections.abc import Mapping

import pytest

from agents.pace import Pace

SOON = (1, 100)
MANY = (1 << 20, 20)


def waits_for(per_s: Mapping[str, int], held: Mapping[str, int]) -> tuple[int, int]:
    """Return what a fetch waits for after a second of so many records a second of each topic."""
    pace = Pace(now_s=0.0)
    for poll in range(1, 101):
        for topic, records in per_s.items():
            pace.took(topic, records // 100)
        pace.look(now_s=poll / 100)
    return pace.wait(lambda topic: held.get(topic, 0))


@pytest.mark.parametrize(
    ("per_s", "held", "expected"),
    [
        pytest.param({"low": 800}, {"low": 1600}, MANY, id="an overload"),
        pytest.param(
            {"low": 800, "medium": 20 * 5}, {"low": 1600, "medium": 2}, SOON, id="many are quick"
        ),
        pytest.param(
            {"low": 1000, "high": 100}, {"low": 2000, "high": 2}, MANY, id="few are quick"
        ),
        pytest.param({"low": 800}, {"low": 170}, MANY, id="each stays for 0.2 s"),
        pytest.param({"low": 800}, {"low": 150}, SOON, id="each stays for less"),
        pytest.param({"low": 10_000}, {"low": 200}, SOON, id="a fast device"),
        pytest.param({"low": 300}, {"low": 3000}, SOON, id="a backlog without much coming in"),
        pytest.param({"high": 1000}, {"high": 15, "low": 10_000}, SOON, id="beside a full lane"),
        pytest.param({"high": 1000}, {"high": 15, "retries": 300}, SOON, id="beside retries"),
        pytest.param({}, {"low": 3000}, SOON, id="nothing comes in"),
    ],
)
def test_a_fetch_waits_while_much_comes_in_and_stays_for_long(
    per_s: Mapping[str, int], held: Mapping[str, int], expected: tuple[int, int]
) -> None:
    assert waits_for(per_s, held) == expected


def test_what_came_in_before_is_forgotten_after_half_a_second() -> None:
    pace = Pace(now_s=0.0)
    pace.took("low", 800)
    pace.look(now_s=0.6)

    pace.look(now_s=1.0)
    assert pace.wait(lambda _: 1600) == MANY
    pace.look(now_s=1.2)
    assert pace.wait(lambda _: 1600) == SOON
