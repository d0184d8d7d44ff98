import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.loadtest.latency import percentile, summarise

LATENCIES = st.lists(st.floats(0, 1e6), min_size=1, max_size=300)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4)])
def test_a_percentile_is_a_measured_value(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == value


@given(LATENCIES, st.floats(0, 1))
def test_at_least_the_share_lies_at_or_below_a_percentile_and_less_below(
    values: list[float], share: float
) -> None:
    found = percentile(sorted(values), share)

    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) <= share * len(values)


@given(LATENCIES)
def test_the_figures_ascend_and_say_how_many_there_were(values: list[float]) -> None:
    found = summarise(values)

    assert found is not None
    assert found.count == len(values)
    assert min(values) <= found.p50_ms <= found.p95_ms <= found.p99_ms <= found.p999_ms
    assert found.p999_ms <= found.max_ms == max(values)


def test_of_nothing_there_are_no_figures() -> None:
    assert summarise([]) is None
