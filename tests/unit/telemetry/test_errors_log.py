"""The ring of last failures."""

from cortex_stream.clock import ManualClock
from cortex_stream.telemetry.errors_log import MESSAGE_CHARS, ErrorsLog


def test_the_newest_failure_comes_first_with_its_time_and_place() -> None:
    clock = ManualClock(unix_ms=1_000)
    log = ErrorsLog(clock=clock)

    log.record(code="invalid_json", message="line 1", topic="t", partition=2, offset=7)
    clock.advance_s(1.5)
    log.record(code="unknown_type", message="no route", request_id="r-1")

    newest, oldest = log.newest()
    assert (newest.code, newest.at_unix_ms, newest.request_id) == ("unknown_type", 2_500, "r-1")
    assert (oldest.topic, oldest.partition, oldest.offset) == ("t", 2, 7)


def test_a_flood_of_huge_failures_costs_constant_memory() -> None:
    log = ErrorsLog(clock=ManualClock(), capacity=3)

    for number in range(1000):
        log.record(code=str(number), message="x" * 1_000_000, request_id="y" * 1_000_000)

    kept = log.newest(limit=100)
    assert [error.code for error in kept] == ["999", "998", "997"]
    assert all(len(error.message) == MESSAGE_CHARS for error in kept)
    assert all(len(error.request_id or "") <= 128 for error in kept)


def test_half_a_surrogate_pair_does_not_break_the_page_later() -> None:
    log = ErrorsLog(clock=ManualClock())

    log.record(code="invalid_field", message="bad \ud800 text")

    assert log.newest()[0].message == "bad ? text"
