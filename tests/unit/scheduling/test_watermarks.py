from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.scheduling.watermarks import (
    SHED_ORDER,
    MemoryState,
    Pressure,
    Watermarks,
    decide_pressure,
    decide_watermarks,
)
from schemas.priority import Lane

MIB = 1 << 20
MARKS = Watermarks(warn_bytes=85, critical_bytes=95)


def marks(limit_mib: int) -> Watermarks:
    return decide_watermarks(
        limit_mib * MIB, warn_ratio=0.85, critical_ratio=0.95, reserve_bytes=256 * MIB
    )


def after(*looks: tuple[float, int], start: Pressure | None = None, idle: bool = False) -> Pressure:
    """Return where the process stands after looks of (seconds, bytes in use)."""
    pressure = start or Pressure()
    for now_s, used_bytes in looks:
        pressure = decide_pressure(
            pressure, MARKS, used_bytes=used_bytes, idle=idle, now_s=now_s, recovery_s=30
        )
    return pressure


# ---- marks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit_mib", "warn_mib", "critical_mib"),
    [
        (512, 435, 461),  # a reserve of 256 would eat half: a tenth is kept
        (2048, 1740, 1843),
        (4096, 3481, 3840),  # 256 are more than a twentieth
        (16384, 13926, 15564),  # a twentieth is more than 256
    ],
)
def test_marks_leave_the_reserve_but_never_more_than_a_tenth(
    limit_mib: int, warn_mib: int, critical_mib: int
) -> None:
    decided = marks(limit_mib)

    assert (decided.warn_bytes // MIB, -(-decided.critical_bytes // MIB)) == pytest.approx(
        (warn_mib, critical_mib), abs=1
    )


@given(
    limit=st.integers(1, 1 << 40),
    ratios=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)).map(sorted),
    reserve=st.integers(0, 1 << 40),
)
def test_marks_are_in_order_and_below_the_limit(
    limit: int, ratios: list[float], reserve: int
) -> None:
    warn, critical = ratios

    decided = decide_watermarks(
        limit, warn_ratio=warn, critical_ratio=critical, reserve_bytes=reserve
    )

    assert 0 <= decided.warn_bytes <= decided.critical_bytes <= limit
    assert limit - decided.critical_bytes >= min(reserve, limit // 10)


# ---- shedding ------------------------------------------------------------------------------------


def test_below_warn_every_lane_is_open() -> None:
    assert after((0, 84)) == Pressure()
    assert Pressure().lanes == ()


def test_above_warn_one_more_lane_is_shed_at_each_look_lowest_first() -> None:
    looks: list[tuple[float, int]] = [(n, 85) for n in range(6)]

    shed = [after(*looks[:n]).lanes for n in range(1, 7)]

    assert shed[:4] == [SHED_ORDER[:n] for n in range(1, 5)]
    assert shed[4:] == [SHED_ORDER, SHED_ORDER]
    assert SHED_ORDER == (Lane.REPLAY, Lane.LOW, Lane.MEDIUM, Lane.HIGH)
    assert after(*looks).state is MemoryState.SHEDDING


def test_critical_stops_every_lane_at_once() -> None:
    pressure = after((0, 95))

    assert pressure.stopped
    assert set(pressure.lanes) == set(Lane)


def test_below_critical_the_critical_lane_is_open_again_at_once() -> None:
    pressure = after((0, 95), (1, 94))

    assert pressure.state is MemoryState.SHEDDING
    assert pressure.lanes == SHED_ORDER


# ---- recovery ------------------------------------------------------------------------------------


def test_lanes_come_back_one_a_look_highest_first_after_the_time_of_recovery() -> None:
    full: list[tuple[float, int]] = [(0, 95), (10, 10), (39.9, 10)]
    assert after(*full) == Pressure(MemoryState.RECOVERING, 4, calm_since_s=10)

    looks = [*full, (40, 10), (41, 10), (42, 10)]

    assert after(*looks[:-2]).lanes == SHED_ORDER[:3]
    assert after(*looks).lanes == (Lane.REPLAY,)
    assert after(*looks, (43, 10)) == Pressure()


def test_one_look_above_warn_begins_the_recovery_anew() -> None:
    pressure = after((0, 85), (1, 10), (30, 85), (32, 10), (61, 10))

    assert pressure == Pressure(MemoryState.RECOVERING, 2, calm_since_s=32)


def test_a_lane_is_open_again_after_little_pressure_as_well() -> None:
    assert after((0, 85), (1, 10), (31, 10)) == Pressure()


looks = st.lists(st.tuples(st.floats(0.1, 20), st.integers(0, 120)), max_size=60)


@given(looks)
def test_whatever_happens_lanes_go_lowest_first_and_come_back_no_sooner_than_calm(
    steps: list[tuple[float, int]],
) -> None:
    now_s, high_s, pressure = 0.0, 0.0, Pressure()
    history = [pressure]
    for step_s, used_bytes in steps:
        now_s += step_s
        pressure = after((now_s, used_bytes), start=pressure)
        high_s = now_s if used_bytes >= MARKS.warn_bytes else high_s
        before = history[-1]
        history.append(pressure)

        assert (pressure.stopped) == (used_bytes >= MARKS.critical_bytes)
        if pressure.shed < before.shed:
            assert now_s - high_s > 30 - 1e-6
            assert pressure.shed == before.shed - 1
        if used_bytes >= MARKS.warn_bytes:
            assert pressure.shed >= 1
    assert all(b.shed - a.shed <= 1 or b.stopped for a, b in pairwise(history))


# ---- when only a restart can help ----------------------------------------------------------------


def test_it_is_hopeless_when_intake_is_stopped_and_nothing_in_the_process_could_end() -> None:
    pressure = after((0, 95), (29, 99), idle=True)

    assert not pressure.hopeless(now_s=29, after_s=30)
    assert pressure.hopeless(now_s=30, after_s=30)


def test_it_is_not_hopeless_while_something_is_in_the_process() -> None:
    pressure = after((0, 95), idle=True)

    pressure = after((29, 95), start=pressure, idle=False)

    assert not pressure.hopeless(now_s=100, after_s=30)


def test_it_is_not_hopeless_below_the_mark() -> None:
    pressure = after((0, 95), (1, 94), idle=True)

    assert not pressure.hopeless(now_s=100, after_s=30)
