import pytest

from cortex_stream.loadtest.profiles.throughput import Pass, Passes


def rate(found: Pass) -> float:
    return found.texts_per_s


def test_a_ratio_is_the_median_of_the_turns_that_both_sides_had() -> None:
    passes = Passes()
    for turn, ours in enumerate((50.0, 90.0, 60.0)):
        passes.add(turn, "cortex-stream", "short", Pass(ours, 1.0))
    for turn, raw in ((0, 100.0), (1, 100.0)):  # it failed in the third turn
        passes.add(turn, "raw", "short", Pass(raw, 1.0))

    assert passes.ratio("raw", "short", rate) == pytest.approx(0.7)


def test_a_side_that_was_not_measured_has_no_ratio() -> None:
    passes = Passes()
    passes.add(0, "cortex-stream", "short", Pass(50.0, 1.0))

    assert passes.ratio("raw", "short", rate) is None
