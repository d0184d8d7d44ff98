"""Floods: of a lane, of a tenant, of requests that nobody waits for any more."""

import asyncio
from collections import Counter

import pytest

from tests.acceptance.system import System

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EMBED = "cortex.nlp.embed.v1"
TEXT = "a sentence of some length, so that a runner has something to do with it"


async def produce(
    system: System, names: range, *, prefix: str, lane: str, **attributes: object
) -> list[str]:
    """Produce one small request for each name; return once the broker has them."""
    ids = [f"{prefix}{name}" for name in names]
    pending = [
        await system.send(each, EMBED, {"texts": [f"{TEXT} {each}"]}, lane=lane, **attributes)
        for each in ids
    ]
    await asyncio.gather(*pending)
    return ids


def order_of(system: System) -> list[str]:
    """Return the request ids in the order in which their outcomes were read."""
    return [(record.key or b"").decode() for record in system.records["cortex.results"]]


async def test_a_tenant_with_a_long_backlog_does_not_hold_up_another_behind_it_in_the_log(
    system: System,
) -> None:
    # given: a lane of 400 requests, and a flood of ten times that before the others in the log
    await system.worker(CORTEX_LANES__MEDIUM="400")
    others = await produce(system, range(2), prefix="before-", lane="medium", tenant="//quiet")
    await system.answered(others, timeout_s=20)
    flood = await produce(system, range(4000), prefix="flood-", lane="medium", tenant="//flood")

    # when
    quiet = await produce(system, range(40), prefix="quiet-", lane="medium", tenant="//quiet")

    # then: they are answered long before the flood, and nothing of the flood is lost or repeated
    await system.answered(quiet, timeout_s=60)
    answered_of_flood = sum(each.startswith("flood-") for each in order_of(system))
    assert answered_of_flood < 0.7 * len(flood)
    await system.answered(flood, timeout_s=90)
    await system.read_to_the_end()
    assert set(Counter(order_of(system)).values()) == {1}
    assert {outcome["type"] for found in system.outcomes.values() for outcome in found} == {
        "cortex.outcome.result.v1"
    }


async def test_low_is_served_its_share_while_critical_floods(system: System) -> None:
    # given: more critical requests than can be answered in the time
    critical = await produce(system, range(4000), prefix="critical-", lane="critical")
    low = await produce(system, range(200), prefix="low-", lane="low")

    # when
    await system.worker()
    await system.answered(low, timeout_s=60)

    # then: low had a ninth; it was done when at most 9 times as much of critical was
    of_critical = sum(each.startswith("critical-") for each in order_of(system))
    assert of_critical <= 12 * len(low)
    await system.answered(critical, timeout_s=60)


async def test_a_backlog_that_nobody_waits_for_expires_and_the_next_requests_are_answered(
    system: System,
) -> None:
    # given: a backlog that has been late since long before the worker came
    late = await produce(
        system, range(5000), prefix="late-", lane="low", deadlinems=1, time="2026-01-01T00:00:00Z"
    )
    fresh = await produce(system, range(20), prefix="fresh-", lane="low", deadlinems=60_000)

    # when
    await system.worker()

    # then
    await system.answered([*late, *fresh], timeout_s=30)
    kinds = {each: system.outcomes[each][0]["type"].split(".")[2] for each in [*late, *fresh]}
    assert Counter(kinds[each] for each in late) == {"expired": len(late)}
    assert Counter(kinds[each] for each in fresh) == {"result": len(fresh)}
