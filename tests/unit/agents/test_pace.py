"""When a fetch waits for many records."""

import pytest

from agents.pace import Pace

SOON = (1, 100)
MANY = (1 << 20, 20)


def at(per_s: int, *, for_s: float = 1.0) -> Pace:
    """Return the pace after polls of eight records, `per_s` records a second."""
    pace = Pace(now_s=0.0)
    polls = int(per_s * for_s / 8)
    for poll in range(1, polls + 1):
        pace.took(8, now_s=for_s * poll / polls)
    return pace


@pytest.mark.parametrize(
    ("per_s", "held", "waits_for"),
    [
        pytest.param(800, 1600, MANY, id="an overload"),
        pytest.param(800, 170, MANY, id="each stays for 0.2 s"),
        pytest.param(800, 150, SOON, id="each stays for less"),
        pytest.param(10_000, 200, SOON, id="a fast device"),
        pytest.param(300, 3000, SOON, id="a backlog without much coming in"),
        pytest.param(0, 3000, SOON, id="nothing comes in"),
    ],
)
def test_a_fetch_waits_while_much_comes_in_and_stays_for_long(
    per_s: int, held: int, waits_for: tuple[int, int]
) -> None:
    assert at(per_s).wait(held=held) == waits_for


def test_what_came_in_before_is_forgotten_after_half_a_second() -> None:
    pace = at(800)

    pace.took(8, now_s=1.4)
    assert pace.wait(held=1600) == MANY
    pace.took(8, now_s=1.6)
    assert pace.wait(held=1600) == SOON
