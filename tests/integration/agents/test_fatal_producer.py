"""A producer that lost its place twice ends the process, and acknowledges nothing meanwhile."""

from pathlib import Path

import pytest

from tests.integration.agents.scene import Scene
from topics.names import EVENTS

pytestmark = pytest.mark.integration

UNLUCKY = (str(Path(__file__).with_name("unlucky_worker.py")),)


async def test_a_producer_that_stays_fatal_ends_the_process_and_acknowledges_nothing(
    scene: Scene,
) -> None:
    (event,) = await scene.send([(EVENTS, {"id": "unlucky-1"})])
    at = scene.sent[event]

    worker = scene.worker(UNLUCKY)
    code = await worker.ends()

    assert code not in {0, 2}
    assert "ProducerFatal" in worker.log.read_text()
    assert event not in {answer["id"] for answer in await scene.read()}
    assert (await scene.committed()).get((at.topic, at.partition), 0) <= at.offset

    scene.worker()  # its supervisor starts it again, with better luck
    await scene.answered([event])
    await scene.everything_committed()
