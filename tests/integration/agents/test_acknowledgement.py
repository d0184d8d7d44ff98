"""A record is acknowledged only after its outcome is durable, in offset order."""

import random

import pytest

from schemas.priority import Lane
from tests.integration.agents.scene import Place, Scene, lanes_of
from topics.names import EVENTS

pytestmark = pytest.mark.integration


async def test_kill_9_loses_nothing_although_records_finish_out_of_order(scene: Scene) -> None:
    chance = random.Random(1)  # noqa: S311 (not a secret)
    names = await scene.ask(2400, ms=lambda: chance.choice([5, 20, 100, 600]))

    for blow in range(3):
        # A static member is given its partitions back at once; a dead dynamic one, after 6 s.
        worker = scene.worker(CORTEX_KAFKA__INSTANCE_ID="one", **lanes_of(100))
        await scene.answered(names[: 300 * (blow + 1)])
        worker.kill()
        assert await scene.committed_but_unanswered() == []
    scene.worker(CORTEX_KAFKA__INSTANCE_ID="one")
    await scene.answered(names)
    await scene.everything_committed()

    assert await scene.committed_but_unanswered() == []


async def test_an_unfinished_record_holds_the_commit_but_not_the_others(scene: Scene) -> None:
    (stuck,) = await scene.ask(1, lanes=[Lane.HIGH], do="hang")
    at = scene.sent[stuck]

    others = await scene.ask(400, lanes=[Lane.HIGH])
    scene.worker()
    await scene.answered(others)
    scene.sent = {n: p for n, p in scene.sent.items() if p.partition != at.partition}
    scene.sent["before the stuck one"] = at._replace(offset=at.offset - 1)
    await scene.everything_committed()

    assert (await scene.committed())[at.topic, at.partition] == at.offset


async def test_a_bug_in_the_engine_ends_the_process_and_acknowledges_nothing(scene: Scene) -> None:
    (poison,) = await scene.ask(1, lanes=[Lane.LOW], do="raise")
    at = scene.sent[poison]

    worker = scene.worker()
    code = await worker.ends()

    assert code == 1
    (line,) = worker.said("engine.failed")
    assert Place(line["topic"], line["partition"], line["offset"]) == at
    assert (await scene.committed()).get((at.topic, at.partition), 0) <= at.offset


async def test_an_outcome_that_does_not_fit_is_replaced_and_blocks_nobody(scene: Scene) -> None:
    requests = await scene.ask(40, lanes=[Lane.MEDIUM], do="large")
    requests += await scene.ask(400, lanes=[Lane.MEDIUM])
    events = await scene.send([(EVENTS, {"id": f"s{n % 7}-{n}"}) for n in range(50)])
    events += await scene.send([(EVENTS, {"id": "s1-large", "do": "large"})])

    scene.worker()
    await scene.answered(requests + events)
    await scene.everything_committed()

    replaced = [answer["id"] for answer in scene.answers if answer.get("large")]
    assert set(replaced) == {*requests[:40], "s1-large"}
