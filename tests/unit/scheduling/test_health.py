from itertools import pairwise
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.scheduling.health import Health, HealthRule

RULE = HealthRule()
Happening = Literal["passed", "probe_failed", "device_failed"]
happenings = st.lists(st.sampled_from(["passed", "probe_failed", "device_failed"]), max_size=30)


def after(*history: Happening) -> Health:
    health = Health(RULE, now_s=0.0)
    for at_s, happening in enumerate(history):
        getattr(health, happening)(now_s=float(at_s))
    return health


def test_a_runner_starts_in_service_and_is_probed_after_the_interval() -> None:
    health = Health(RULE, now_s=100.0)

    assert not health.out
    assert health.probe_in_s(now_s=101.0) == 4.0
    assert health.probe_in_s(now_s=105.0) == 0.0
    assert health.probe_in_s(now_s=109.0) == 0.0


def test_the_third_failed_probe_in_a_row_puts_a_runner_out() -> None:
    assert not after("probe_failed", "probe_failed").out
    assert after("probe_failed", "probe_failed", "probe_failed").out


def test_a_success_forgets_failed_probes() -> None:
    assert not after("probe_failed", "probe_failed", "passed", "probe_failed", "probe_failed").out


def test_a_failed_device_puts_a_runner_out_at_once_and_the_first_success_brings_it_back() -> None:
    assert after("device_failed").out
    assert after("device_failed", "probe_failed").out
    assert not after("device_failed", "probe_failed", "passed").out


def test_the_time_before_giving_up_has_room_for_as_many_probes_as_put_a_runner_out() -> None:
    assert RULE.give_up_after_s == RULE.max_failed_probes * RULE.probe_every_s
    assert RULE.probe_timeout_s < RULE.probe_every_s


@given(happenings)
def test_only_a_success_brings_a_runner_back_and_only_failures_put_it_out(
    history: list[Happening],
) -> None:
    states = [after(*history[:length]).out for length in range(len(history) + 1)]

    for happening, (before, now) in zip(history, pairwise(states), strict=True):
        if happening == "passed":
            assert not now
        else:
            assert now or not before
        if now and not before:
            assert happening != "passed"


@given(happenings)
def test_a_runner_is_out_exactly_when_its_failures_since_the_last_success_are_enough(
    history: list[Happening],
) -> None:
    since = (
        history[len(history) - history[::-1].index("passed") :] if "passed" in history else history
    )

    assert after(*history).out is ("device_failed" in since or len(since) >= RULE.max_failed_probes)


@given(happenings, st.floats(0, 100))
def test_whatever_happens_the_next_probe_is_within_the_interval(
    history: list[Happening], waited_s: float
) -> None:
    now_s = max(0, len(history) - 1) + waited_s

    assert 0.0 <= after(*history).probe_in_s(now_s=now_s) <= RULE.probe_every_s
