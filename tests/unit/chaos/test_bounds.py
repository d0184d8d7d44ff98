"""Rules about floods, retries, connections and replays, each violated once."""

from collections.abc import Callable
from dataclasses import replace

from tests.unit.chaos.rounds import MOMENT_MS, Story, found, well


def flood(*, low_at_s: Callable[[int], float]) -> Story:
    """Ten critical requests are asked and answered in each of ten seconds; thirty low ones wait.

    Args:
        low_at_s: when the n-th low one is answered.
    """
    story = Story()
    story.deed("heal")
    for number in range(30):
        story.answer(story.ask(f"low-{number}", lane="low"), at_ms=round(low_at_s(number) * 1000))
    for number in range(200):
        at_ms = number * 50
        story.answer(story.ask(f"c-{number}", lane="critical", at_ms=at_ms), at_ms=at_ms + 1)
    return story


def test_low_requests_that_wait_until_all_others_are_done_are_noticed() -> None:
    fair = flood(low_at_s=lambda number: number / 3)
    starving = flood(low_at_s=lambda number: 10 + number / 100)

    assert found(fair) == set()
    assert found(starving) == {"I6", "floor"}


def test_low_requests_of_which_none_waits_for_long_may_be_few() -> None:
    story = flood(low_at_s=lambda number: number / 100)

    assert found(story) == set()


def retried(*, attempts: int, early_ms: int = 0, requests: int = 1) -> Story:
    """Requests that were each answered at an attempt, the first of them after a retry."""
    story = Story()
    for number in range(requests):
        asked = story.ask(f"r-{number}")
        if not number:
            waiting = {"due_unix_ms": MOMENT_MS + 5000}
            story.hand_over("cortex.retries.1", asked, attempt=attempts, waiting=waiting)
        story.answer(asked, at_ms=5000 - early_ms, attempt=attempts)
    return story


def test_a_retry_before_it_is_due_is_noticed() -> None:
    assert retried(attempts=2).verdict("retries").holds
    assert not retried(attempts=2, early_ms=1).verdict("retries").holds


def test_more_further_attempts_than_the_budget_has_are_noticed() -> None:
    assert retried(attempts=2, requests=120).verdict("retries").holds
    assert not retried(attempts=2, requests=130).verdict("retries").holds


def test_a_round_without_retries_shows_nothing_about_them() -> None:
    assert not well().verdict("retries").holds


def test_connections_without_a_pause_are_noticed() -> None:
    calm, eager = Story(), Story()
    for story, per_look in ((calm, 10), (eager, 40)):
        for number in range(20):
            story.look(at_ms=number * 200, committed=4, end=4)
            story.probes[-1] = replace(story.probes[-1], connections=number * per_look)

    assert calm.verdict("connections").holds
    assert not eager.verdict("connections").holds


def a_replay() -> Story:
    """Three low requests, put back and answered again."""
    story = Story()
    low = [story.ask(name, lane="low") for name in ("a", "b", "c")]
    for asked in low:
        story.answer(asked)
    story.deed("inject", at_ms=10, detail="replay one")
    for asked in low:
        story.hand_over(
            "cortex.requests.replay", asked, attempt=1, reinjection={"replay_id": "one"}
        )
        story.answer(asked, topic="cortex.replays", replay_id="one")
    return story


def test_a_replay_that_is_whole_holds_and_one_that_leaves_a_record_out_does_not() -> None:
    whole, partial, cancelled = a_replay(), a_replay(), a_replay()
    for story in (partial, cancelled):
        for topic in ("cortex.requests.replay", "cortex.replays"):
            story.records[topic].pop()
    cancelled.deed("inject", detail="cancel one")

    assert whole.verdict("I11").holds
    assert not partial.verdict("I11").holds
    assert cancelled.verdict("I11").holds


def test_what_a_replay_put_back_must_be_answered_under_its_id_and_as_before() -> None:
    unanswered, strange, other = a_replay(), a_replay(), a_replay()
    unanswered.records["cortex.replays"].pop()
    low = strange.records["cortex.requests.low"][0]
    strange.answer(low, topic="cortex.replays", replay_id="two")
    other.answer(low, topic="cortex.replays", replay_id="one", vector="other")

    for story in (unanswered, strange, other):
        assert not story.verdict("I11").holds
