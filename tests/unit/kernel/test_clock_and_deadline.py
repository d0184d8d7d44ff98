import time

from cortex_stream.clock import ManualClock, SystemClock
from cortex_stream.deadline import Deadline


def test_a_deadline_has_passed_at_its_moment_and_not_before() -> None:
    deadline = Deadline(10.0)

    assert not deadline.expired(now_s=9.999)
    assert deadline.expired(now_s=10.0)
    assert deadline.remaining_s(now_s=9.0) == 1.0
    assert deadline.remaining_s(now_s=11.0) == -1.0


def test_deadlines_sort_by_their_moment() -> None:
    assert sorted([Deadline(3.0), Deadline(1.0)]) == [Deadline(1.0), Deadline(3.0)]


def test_a_manual_clock_stands_still_until_told_otherwise() -> None:
    clock = ManualClock(monotonic_s=5.0, unix_ms=1000)
    assert (clock.monotonic_s(), clock.unix_ms()) == (5.0, 1000)

    clock.advance_s(1.5)

    assert (clock.monotonic_s(), clock.unix_ms()) == (6.5, 2500)


def test_the_system_clock_reads_the_machine() -> None:
    clock = SystemClock()

    assert clock.monotonic_s() <= time.monotonic() <= clock.monotonic_s()
    assert abs(clock.unix_ms() - time.time_ns() // 1_000_000) < 60_000
