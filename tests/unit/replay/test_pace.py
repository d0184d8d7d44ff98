"""Even spacing: the mean is the rate, and no pause is followed by a flood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.errors import OperatorError
from cortex_stream.replay.pace import Pace, chunk_records, parse_rate


def test_without_a_rate_nothing_waits() -> None:
    pace = Pace(None)

    assert [pace.delay_s(500, now_s=now_s) for now_s in (0.0, 0.0, 0.0)] == [0.0, 0.0, 0.0]


def test_records_are_spaced_by_the_rate() -> None:
    pace = Pace(10)

    assert pace.delay_s(1, now_s=5.0) == 0.0
    assert pace.delay_s(2, now_s=5.0) == pytest.approx(0.1)
    assert pace.delay_s(1, now_s=5.1) == pytest.approx(0.2)


def test_half_a_second_late_is_made_up_for_and_a_minute_is_not() -> None:
    late, much_later = Pace(8), Pace(8)  # an eighth of a second is exact
    late.delay_s(1, now_s=0.0)
    much_later.delay_s(1, now_s=0.0)

    made_up = sum(late.delay_s(1, now_s=0.5) == 0.0 for _ in range(20))
    at_once = sum(much_later.delay_s(1, now_s=64.0) == 0.0 for _ in range(200))

    assert made_up == 4
    assert at_once == 9


@given(
    per_s=st.floats(0.5, 5000),
    pauses_s=st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
def test_never_more_than_the_rate_and_one_chunk_more(per_s: float, pauses_s: list[float]) -> None:
    pace, now_s, sent = Pace(per_s), 0.0, 0
    chunk = chunk_records(per_s, most=500)

    for pause_s in pauses_s:
        now_s += pace.delay_s(chunk, now_s=now_s)
        sent += chunk
        assert sent <= per_s * now_s * (1 + 1e-9) + chunk
        now_s += pause_s


@pytest.mark.parametrize(
    ("per_s", "records"), [(None, 500), (0.1, 1), (10, 1), (100, 10), (1e6, 500)]
)
def test_a_chunk_is_a_tenth_of_a_second(per_s: float | None, records: int) -> None:
    assert chunk_records(per_s, most=500) == records


def test_a_rate_is_read_with_and_without_its_unit() -> None:
    assert parse_rate("50/s") == parse_rate("50") == 50.0


@pytest.mark.parametrize("text", ["0", "-1/s", "fast", "nan", "inf", "5/m", ""])
def test_another_rate_is_refused(text: str) -> None:
    with pytest.raises(OperatorError, match="reading --rate"):
        parse_rate(text)
