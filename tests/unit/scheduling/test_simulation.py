"""What callers would see of the scheduler, over seconds of load that take none to simulate."""

import random
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from cortex_stream.scheduling.batcher import BatchRule
from schemas.priority import Lane
from tests.unit.scheduling.rows import RULE
from tests.unit.scheduling.simulation import (
    BASE_S,
    PER_TOKEN_S,
    Arrival,
    Served,
    percentile,
    simulate,
)

CAPACITY_TOKENS_S = 2 / PER_TOKEN_S  # two runners; a batch costs next to nothing beside its tokens
CAPACITY_ROWS_S = CAPACITY_TOKENS_S / 42
LONGEST_BATCH_S = BASE_S + PER_TOKEN_S * RULE.max_tokens
RECORDED = Path(__file__).parents[2] / "fixtures" / "recorded_arrivals.csv"
PROMPT_SCALE = (
    16  # the longest recorded prompts, of 4,100 tokens, are as long as a model reads here
)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 (no secret)


def lengths(rng: random.Random) -> int:
    """Draw a paragraph's tokens: mean 42, with a long tail."""
    return min(RULE.max_tokens, 4 + int(rng.expovariate(1 / 38)))


def poisson(
    rng: random.Random,
    *,
    per_s: float,
    seconds: float,
    lane: Lane,
    tenant: str = "//a",
    from_s: float = 0.0,
    budget_s: float | None = None,
) -> list[Arrival]:
    arrivals, at_s = [], from_s
    while (at_s := at_s + rng.expovariate(per_s)) < from_s + seconds:
        arrivals.append(Arrival(at_s, lane, tenant, lengths(rng), budget_s))
    return arrivals


def recorded(*, load: float, seconds: float, budget_s: float | None = None) -> list[Arrival]:
    """Return a recorded minute again and again, so fast that it asks for `load` of the capacity.

    Every tenth request is critical, the others are low.
    """
    lines = [line for line in RECORDED.read_text().splitlines() if not line.startswith("#")]
    minute = [(float(at_s), int(prompt)) for at_s, prompt in (line.split(",") for line in lines)]
    lengths = [max(1, min(RULE.max_tokens, prompt // PROMPT_SCALE)) for _, prompt in minute]
    lasts_s = sum(lengths) / CAPACITY_TOKENS_S / load
    arrivals: list[Arrival] = []
    for turn in count():
        for (at_s, _), length in zip(minute, lengths, strict=True):
            moved_s = (turn + at_s / 60) * lasts_s
            if moved_s > seconds:
                return arrivals
            lane = Lane.LOW if len(arrivals) % 10 else Lane.CRITICAL
            arrivals.append(Arrival(moved_s, lane, "//a", length, budget_s))
    raise AssertionError


def answered(served: list[Served], lane: Lane) -> list[Served]:
    return [end for end in served if end.done_s is not None and end.arrival.lane is lane]


def tokens_of(ends: list[Served]) -> int:
    return sum(end.arrival.length_tokens for end in ends)


def test_critical_requests_wait_for_one_batch_beside_a_deep_low_backlog() -> None:
    rng = seeded(7)
    backlog = [Arrival(0.0, Lane.LOW, "//a", lengths(rng)) for _ in range(20_000)]
    urgent = poisson(rng, per_s=20, seconds=30, lane=Lane.CRITICAL)

    served = simulate([*backlog, *urgent], rule=RULE, until_s=30)

    waits_s = [end.latency_s for end in answered(served, Lane.CRITICAL)]
    assert len(waits_s) > 500
    assert percentile(waits_s, 99) < 2 * LONGEST_BATCH_S
    low = answered(served, Lane.LOW)
    assert tokens_of(low) / 30 > 0.9 * CAPACITY_TOKENS_S
    in_company = [end.batch_rows for end in low if end.arrival.length_tokens <= 32]
    assert sum(in_company) / len(in_company) > 7  # the urgent ones did not break batches up


def test_low_keeps_its_share_under_a_flood_of_critical_requests() -> None:
    rng = seeded(8)
    flood = [Arrival(0.0, Lane.CRITICAL, "//a", lengths(rng)) for _ in range(20_000)]
    low = poisson(rng, per_s=200, seconds=20, lane=Lane.LOW)

    served = simulate([*flood, *low], rule=RULE, until_s=20)

    tokens = Counter[Lane]()
    for end in served:
        tokens[end.arrival.lane] += end.arrival.length_tokens
    assert 0.9 / 9 < tokens[Lane.LOW] / tokens.total() < 1.1 / 9


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_flooding_tenant_leaves_the_others_latency_as_it_was(share: float) -> None:
    rng = seeded(9)
    others = [
        arrival
        for number in range(99)
        for arrival in poisson(
            rng,
            per_s=CAPACITY_ROWS_S * share / 99,
            seconds=20,
            lane=Lane.MEDIUM,
            tenant=f"//quiet-{number}",
        )
    ]
    flood = poisson(rng, per_s=CAPACITY_ROWS_S * 5, seconds=20, lane=Lane.MEDIUM, tenant="//flood")

    alone = simulate(others, rule=RULE, until_s=20)
    beside = simulate([*others, *flood], rule=RULE, until_s=20)

    def p99_s(served: list[Served]) -> float:
        quiet = [end.latency_s for end in served if end.arrival.tenant != "//flood"]
        assert len(quiet) > 4000
        return percentile(quiet, 99)

    assert p99_s(beside) < p99_s(alone) + 1.5 * LONGEST_BATCH_S


def test_overload_with_deadlines_is_answered_at_capacity_and_the_rest_expires() -> None:
    rng = seeded(10)
    flood = poisson(rng, per_s=3 * CAPACITY_ROWS_S, seconds=20, lane=Lane.MEDIUM, budget_s=2.0)
    after = poisson(
        rng,
        per_s=CAPACITY_ROWS_S / 4,
        seconds=10,
        lane=Lane.MEDIUM,
        from_s=20.0,
        budget_s=2.0,
    )

    served = simulate([*flood, *after], rule=RULE, until_s=30)

    in_time = [
        end
        for end in answered(served, Lane.MEDIUM)
        if end.arrival.at_s < 20 and end.latency_s <= 2.0
    ]
    assert tokens_of(in_time) / 20 > 0.8 * CAPACITY_TOKENS_S
    long = [end for end in in_time if end.arrival.length_tokens > 100]
    assert len(long) > 0.1 * sum(arrival.length_tokens > 100 for arrival in flood)
    assert not [end for end in served if end.done_s is not None and end.latency_s > 2.0]
    at_the_end = [end for end in served if end.arrival.at_s > 25]
    assert all(end.done_s is not None for end in at_the_end)


def test_on_a_device_that_takes_large_batches_they_close_in_time_for_their_deadlines() -> None:
    """A batch of 256 rows takes 0.7 s here; with 0.3 s to go, fewer rows run together."""
    rng = seeded(11)
    rule = BatchRule(max_rows=256, max_tokens=65_536)
    flood = [Arrival(0.0, Lane.LOW, "//a", lengths(rng)) for _ in range(30_000)]
    urgent = poisson(rng, per_s=20, seconds=20, lane=Lane.HIGH, budget_s=1.0)

    served = simulate(
        [*flood, *urgent], runners=1, rule=rule, until_s=20, base_s=0.005, per_token_s=0.00002
    )

    ends = answered(served, Lane.HIGH)
    late = [end for end in ends if end.latency_s > 1.0]
    assert len(late) < 0.01 * len(ends)


def test_critical_requests_wait_for_two_batches_in_recorded_bursts_beyond_capacity() -> None:
    served = simulate(recorded(load=1.3, seconds=30), rule=RULE, until_s=30)

    critical = [end.latency_s for end in answered(served, Lane.CRITICAL)]
    low = [end.latency_s for end in answered(served, Lane.LOW)]
    assert len(critical) > 500
    assert percentile(critical, 99) < 3 * LONGEST_BATCH_S  # two batches under way, and its own
    assert percentile(low, 50) > 20 * LONGEST_BATCH_S  # it was an overload


def test_recorded_bursts_below_capacity_are_all_answered_in_time() -> None:
    arrivals = recorded(load=0.8, seconds=30, budget_s=1.0)

    served = simulate(arrivals, rule=RULE, until_s=60)

    assert len(served) == len(arrivals) > 5000
    assert all(end.done_s is not None and end.latency_s <= 1.0 for end in served)


def test_recorded_bursts_at_three_times_the_capacity_are_answered_at_capacity() -> None:
    served = simulate(recorded(load=3, seconds=20, budget_s=2.0), rule=RULE, until_s=20)

    in_time = [end for end in served if end.done_s is not None and end.latency_s <= 2.0]
    assert tokens_of(in_time) / 20 > 0.8 * CAPACITY_TOKENS_S
