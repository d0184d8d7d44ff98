"""What an outage may cost: time, memory and throughput, each exceeded once."""

import pytest

from tests.unit.chaos.rounds import OF_OUTAGES, Story, outage


def found(story: Story, invariant: str) -> list[str]:
    """Return what the checker says of one invariant."""
    return story.verdict(invariant).violations[invariant]


def test_an_outage_that_is_soon_over_and_leaves_nothing_behind_is_no_violation() -> None:
    verdict = outage(answered_after_s=9).verdict("recovery", "memory")

    assert verdict.holds, verdict.violations
    assert verdict.figures["recovery_s"] == 9
    assert verdict.figures["rss_ratio"] == verdict.figures["rss_peak_ratio"] == 1


@pytest.mark.parametrize("invariant", OF_OUTAGES)
def test_a_round_in_which_nothing_was_broken_and_healed_shows_nothing(invariant: str) -> None:
    story = Story()
    story.answer(story.ask("quiet"), at_ms=1)
    story.deed("inject", at_ms=1000)

    assert "no fault with its heal was noted" in found(story, invariant)


def test_a_lane_that_is_answered_again_late_is_noticed() -> None:
    assert found(outage(answered_after_s=11), "recovery")


def test_an_answer_to_what_was_asked_before_the_fault_is_no_recovery() -> None:
    story = outage(answered_after_s=11)

    story.answer(story.ask("before", at_ms=5000), at_ms=20_001)

    assert found(story, "recovery")


def test_a_lane_without_an_answer_until_the_next_fault_is_noticed_after_ten_seconds() -> None:
    soon, late = outage(answered_after_s=100), outage(answered_after_s=100)
    for story, next_ms in ((soon, 25_000), (late, 35_000)):
        story.deed("inject", at_ms=next_ms)

    assert not found(soon, "recovery")
    assert found(late, "recovery")


@pytest.mark.parametrize(("mebibytes", "noticed"), [(109, False), (112, True)])
def test_memory_that_does_not_come_back_is_noticed(mebibytes: int, *, noticed: bool) -> None:
    assert bool(found(outage(rss_bytes=mebibytes << 20), "memory")) is noticed


def test_a_fault_before_any_worker_was_ready_says_nothing_of_memory_and_is_noticed() -> None:
    story = outage()
    story.probes = story.probes[10:]

    assert found(story, "memory")


@pytest.mark.parametrize(("each_ms", "noticed"), [(250, False), (400, True)])
def test_a_third_of_the_usual_throughput_must_be_left(each_ms: int, *, noticed: bool) -> None:
    # given: ten answers a second
    story = Story()
    story.deed("heal", at_ms=0)
    for at_ms in range(0, 10_000, 100):
        story.answer(story.ask(f"before {at_ms}"), at_ms=at_ms)
    story.deed("inject", at_ms=10_000)

    # when
    for at_ms in range(10_000, 20_000, each_ms):
        story.answer(story.ask(f"during {at_ms}"), at_ms=at_ms)
    story.deed("heal", at_ms=20_000)

    # then
    assert bool(found(story, "storm")) is noticed


def test_an_answer_given_twice_counts_once() -> None:
    story = Story()
    story.deed("heal", at_ms=0)
    story.answer(story.ask("before"), at_ms=1)
    story.deed("inject", at_ms=1000)
    again = story.ask("during")
    for at_ms in range(1000, 2000, 100):
        story.answer(again, at_ms=at_ms)
    story.deed("heal", at_ms=2000)

    assert story.verdict("storm").figures["throughput_ratio"] == 1


def test_a_partition_that_waits_for_long_while_workers_come_and_go_is_noticed() -> None:
    waiting, idle = Story(), Story()
    for story in (waiting, idle):
        story.deed("heal", at_ms=0)
        story.answer(story.ask("before"), at_ms=1)
        story.deed("inject", at_ms=1000)
        story.answer(story.ask("during"), at_ms=1001)
        for at_s in range(1, 36):
            story.look(at_ms=at_s * 1000, committed=3, end=10 if story is waiting else 3)
        story.deed("heal", at_ms=2000)

    assert any("stood still" in each for each in found(waiting, "storm"))
    assert not any("stood still" in each for each in found(idle, "storm"))


@pytest.mark.parametrize(
    ("ready_at_s", "code", "noticed"), [(9, 4, False), (11, 4, True), (9, 1, True), (9, None, True)]
)
def test_a_worker_without_broker_turns_unready_and_ends_with_4(
    ready_at_s: int, code: int | None, *, noticed: bool
) -> None:
    story = Story()
    story.deed("inject", at_ms=0)
    story.look(at_ms=ready_at_s * 1000, committed=0)
    story.look(at_ms=12_000, committed=0, ready=503)
    if code is not None:
        story.deed("exit", at_ms=20_000, code=code)
    story.deed("heal", at_ms=30_000)

    assert bool(found(story, "stall")) is noticed


def test_kills_of_workers_and_of_services_are_counted_and_other_ends_are_not() -> None:
    story = outage()
    story.deed("inject", detail="SIGKILL of the broker")
    story.deed("inject", detail="SIGSTOP of Redis")
    story.deed("inject", detail="SIGKILL of worker")
    for code in (-9, 0, 4):
        story.deed("exit", code=code)

    assert story.verdict("I1").figures["kills"] == 2
