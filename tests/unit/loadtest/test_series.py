from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import LoadRequest
from cortex_stream.loadtest.meter import Sample, Usage
from cortex_stream.loadtest.series import per_second
from schemas.priority import Lane


def sent(ledger: Ledger, request_id: str, *, lane: Lane = Lane.LOW, at_ms: int) -> None:
    ledger.sent(LoadRequest(request_id, lane, b""), at_ms=at_ms)


def test_of_nothing_there_are_no_seconds() -> None:
    assert per_second(Ledger(), []) == []


def test_each_second_tells_what_was_sent_answered_and_still_waits() -> None:
    ledger = Ledger()
    sent(ledger, "a", at_ms=10_000)
    sent(ledger, "b", at_ms=10_999)
    sent(ledger, "c", lane=Lane.HIGH, at_ms=11_000)
    ledger.arrived(b"{}", append_ms=10_100, key=b"a")
    ledger.arrived(b"{}", append_ms=12_500, key=b"b")

    seconds = per_second(ledger, [])

    assert [(each.sent, each.answered, each.lag) for each in seconds] == [
        (2, 1, 1),
        (1, 0, 2),
        (0, 1, 1),
    ]
    assert seconds[0].latency[Lane.LOW].max_ms == 1501  # by the second of sending
    assert seconds[1].latency == {}  # c has no outcome
    assert seconds[0].row()["p50 low ms"] == 100
    assert seconds[0].row()["rss MB"] is None


def test_memory_is_the_most_of_a_second_and_cpu_a_rate() -> None:
    ledger = Ledger()
    sent(ledger, "a", at_ms=10_000)
    samples = [
        Sample(9_000, Usage(0.0, 900), 0.0, 0.0),  # before the run
        Sample(10_100, Usage(1.0, 100), 0.0, 0.0),
        Sample(10_600, Usage(1.5, 300), 0.0, 0.0),
    ]

    (second,) = per_second(ledger, samples)

    assert second.rss_bytes == 300
    assert second.cpu_cores == 1.0


def test_an_outcome_by_a_clock_that_is_behind_belongs_to_the_first_second() -> None:
    ledger = Ledger()
    sent(ledger, "a", at_ms=10_000)
    ledger.arrived(b"{}", append_ms=9_999, key=b"a")

    (second,) = per_second(ledger, [])

    assert second.answered == 1
