import asyncio

import circuitbreaker
import pytest

from cortex_stream.circuit import Circuit, Outage
from cortex_stream.clock import ManualClock
from cortex_stream.telemetry import metrics


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """A clock that the library looks at, too."""
    clock = ManualClock()
    monkeypatch.setattr(circuitbreaker, "monotonic", clock.monotonic_s)
    return clock


@pytest.fixture
def circuit(clock: ManualClock) -> Circuit:
    return Circuit("store", clock=clock, failures=3, rest_s=5)


def fail(circuit: Circuit, error: BaseException) -> None:
    with pytest.raises(type(error)), circuit:
        raise error


def succeed(circuit: Circuit) -> None:
    with circuit:
        pass


def break_it(circuit: Circuit) -> None:
    for _ in range(3):
        fail(circuit, ConnectionError("refused"))


def test_failures_in_a_row_open_it(circuit: Circuit, clock: ManualClock) -> None:
    for _ in range(2):
        fail(circuit, ConnectionError("refused"))
        assert not circuit.open

    fail(circuit, ConnectionError("refused"))

    assert circuit.open
    assert circuit.outage == Outage(clock.unix_ms(), "refused")
    assert metrics.CIRCUIT_OPEN.labels("store")._value.get() == 1


def test_it_says_how_long_nobody_asks(circuit: Circuit, clock: ManualClock) -> None:
    assert circuit.rests_s == 0

    break_it(circuit)
    clock.advance_s(2)
    resting_s = circuit.rests_s
    clock.advance_s(3)

    assert resting_s == 3
    assert circuit.rests_s == 0
    assert circuit.outage is not None


def test_a_success_between_failures_keeps_it_closed(circuit: Circuit) -> None:
    for _ in range(10):
        fail(circuit, TimeoutError())
        fail(circuit, TimeoutError())
        succeed(circuit)

    assert not circuit.open


def test_after_a_rest_one_call_goes_through_and_others_do_not_wait_for_it(
    circuit: Circuit, clock: ManualClock
) -> None:
    break_it(circuit)
    clock.advance_s(4.9)
    assert circuit.open

    clock.advance_s(0.2)

    assert not circuit.open
    with circuit:
        assert circuit.open  # for everybody else
    assert not circuit.open


def test_a_probe_that_succeeds_closes_it(circuit: Circuit, clock: ManualClock) -> None:
    break_it(circuit)
    clock.advance_s(5.1)

    succeed(circuit)

    assert circuit.outage is None
    assert metrics.CIRCUIT_OPEN.labels("store")._value.get() == 0
    fail(circuit, ConnectionError("refused"))
    assert not circuit.open  # it counts from the beginning


def test_a_probe_that_fails_keeps_it_open_for_another_rest(
    circuit: Circuit, clock: ManualClock
) -> None:
    break_it(circuit)
    since = circuit.outage
    clock.advance_s(5.1)

    fail(circuit, ConnectionError("still refused"))

    assert circuit.open
    assert circuit.outage == since
    clock.advance_s(5.1)
    assert not circuit.open


def test_a_cancelled_call_says_nothing_about_the_dependency(
    circuit: Circuit, clock: ManualClock
) -> None:
    for _ in range(3):
        fail(circuit, asyncio.CancelledError())
    assert circuit.outage is None

    break_it(circuit)
    clock.advance_s(5.1)
    fail(circuit, asyncio.CancelledError())
    assert circuit.outage is not None
    assert not circuit.open  # the next call is the probe


def test_an_error_without_a_text_is_named_by_its_kind(circuit: Circuit) -> None:
    for _ in range(3):
        fail(circuit, TimeoutError())

    assert circuit.outage is not None
    assert circuit.outage.reason == "TimeoutError"
