"""A model run that never comes back takes its batch and its process with it, and nothing else."""

from pathlib import Path

import pytest

from cortex_stream.clock import SystemClock
from cortex_stream.kafka.reader import TopicReader
from schemas.dead_letters import CODE
from schemas.priority import Lane
from schemas.requests import EMBED
from tests.integration.agents.scene import Scene
from topics.names import DEAD_LETTERS

pytestmark = pytest.mark.integration

STICKY = (str(Path(__file__).with_name("stuck_worker.py")),)
RUN_TIMEOUT_S, DRAIN_TIMEOUT_S = 1.0, 2.0
ENVIRONMENT = {
    "CORTEX_INFERENCE__RUN_TIMEOUT_S": str(RUN_TIMEOUT_S),
    "CORTEX_KAFKA__DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
}
MARGIN_S = 6.0  # a process that does not end is cut off 4 s after its drain; and a slow machine


async def outcomes(scene: Scene) -> list[tuple[str, str]]:
    """Return the request id and the kind of every outcome, repetitions too."""
    return [(each["data"]["request_id"], each["type"].split(".")[2]) for each in await scene.read()]


async def test_a_stuck_run_is_a_dead_letter_and_its_process_drains_and_ends_by_itself(
    scene: Scene,
) -> None:
    # given
    clock = SystemClock()
    worker = scene.worker(STICKY, **ENVIRONMENT)
    await worker.is_ready()
    (stuck,) = await scene.ask(1, lanes=[Lane.HIGH], type=EMBED, data={"texts": ["x" * 60] * 3})
    others = await scene.ask(100, type=EMBED, data={"texts": ["short"]})  # 5 s: draining is cut off

    # when
    began_s = clock.monotonic_s()
    while (readiness := await worker.get("/readyz"))[0] == 200:
        pass
    code = await worker.ends()
    took_s = clock.monotonic_s() - began_s

    # then
    print(f"exit code {code} after {took_s:.1f} s")
    assert "failing" in readiness[1]
    assert code not in {0, 2}  # 2 tells a supervisor that starting again will not help
    assert took_s < RUN_TIMEOUT_S + DRAIN_TIMEOUT_S + MARGIN_S
    assert [kind for name, kind in await outcomes(scene) if name == stuck] == ["dead_letter"]
    async with TopicReader(scene.settings, [DEAD_LETTERS]) as reader:
        letters = [dict(record.headers)[CODE] async for record in reader.to_end()]
    assert letters == [b"stuck_run"]

    # and when a supervisor starts it again
    again = scene.worker(STICKY, **ENVIRONMENT)
    await scene.everything_committed()

    # then
    assert again.process.poll() is None
    assert again.said("worker.failing") == []
    assert sorted(await outcomes(scene)) == sorted(
        [(stuck, "dead_letter"), *((name, "result") for name in others)]
    )
