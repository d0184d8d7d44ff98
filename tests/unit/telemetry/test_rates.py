"""Rates per key over a window of seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.clock import ManualClock
from cortex_stream.telemetry.rates import PeakMeter, RateMeter


def test_a_steady_stream_has_its_own_rate() -> None:
    clock = ManualClock()
    meter = RateMeter(clock=clock)

    for _ in range(300):
        meter.record("high")
        clock.advance_s(0.1)

    assert meter.rate_per_s("high") == pytest.approx(10, rel=0.02)


def test_the_first_event_does_not_look_like_a_burst() -> None:
    clock = ManualClock(monotonic_s=1000.0)
    meter = RateMeter(clock=clock)

    clock.advance_s(0.001)
    meter.record("high")

    assert meter.rate_per_s("high") == 1.0


def test_what_is_older_than_the_window_is_forgotten() -> None:
    clock = ManualClock()
    meter = RateMeter(clock=clock, window_s=60)
    meter.record("high", 500)

    clock.advance_s(61)

    assert meter.rate_per_s("high", over_s=60) == 0
    assert set(meter.recent_per_s("high")) == {0.0}


def test_the_running_second_is_not_part_of_the_history_so_that_a_line_does_not_dip() -> None:
    clock = ManualClock(monotonic_s=1000.0)
    meter = RateMeter(clock=clock, window_s=3)
    for amount in (1, 2, 3):
        meter.record("m", amount)
        clock.advance_s(1)

    meter.record("m", 99)

    assert meter.recent_per_s("m") == (1, 2, 3)


def test_keys_do_not_mix_and_an_unknown_key_is_idle() -> None:
    meter = RateMeter(clock=ManualClock(), window_s=5)

    meter.record("high")

    assert meter.rate_per_s("low") == 0
    assert meter.recent_per_s("low") == (0.0,) * 5


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 9)), max_size=50))
def test_the_ring_agrees_with_counting_every_event(steps: list[tuple[float, int]]) -> None:
    clock = ManualClock(monotonic_s=1000.0)
    meter = RateMeter(clock=clock, window_s=10)
    events: list[tuple[int, int]] = []

    for pause_s, amount in steps:
        clock.advance_s(pause_s)
        meter.record("k", amount)
        events.append((int(clock.monotonic_s()), amount))

    now = int(clock.monotonic_s())
    expected = tuple(sum(a for at, a in events if at == s) for s in range(now - 10, now))
    assert meter.recent_per_s("k") == expected


def test_a_ring_that_went_round_counts_its_last_turn_only() -> None:
    clock = ManualClock(monotonic_s=1000.0)
    meter = RateMeter(clock=clock, window_s=4)

    for _ in range(23):
        meter.record("k")
        clock.advance_s(1)

    assert meter.recent_per_s("k") == (1, 1, 1, 1)


def test_a_peak_is_the_largest_of_the_last_minute_and_then_forgotten() -> None:
    clock = ManualClock()
    peaks = PeakMeter(clock=clock)
    for value in (0.5, 3.0, 1.0):
        peaks.record("low", value)
        clock.advance_s(1)

    assert peaks.largest("low") == 3.0
    assert peaks.largest("high") == 0.0
    clock.advance_s(59)
    assert peaks.largest("low") == 1.0
    clock.advance_s(2)
    assert peaks.largest("low") == 0.0
