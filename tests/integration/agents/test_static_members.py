"""A static member that comes back in time is not missed, and the pause of a rebalance is known."""

import re
import signal

import pytest

from tests.integration.agents.scene import Scene, Worker, eventually, lanes_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAUSE = "cortex_rebalance_pause_seconds"


async def rebalances(worker: Worker) -> int:
    """Return how many rebalances the worker has measured."""
    _, text = await worker.get("/metrics")
    count = re.search(rf"^{PAUSE}_count (\S+)$", text, re.MULTILINE)
    assert count is not None
    return int(float(count[1]))


async def partitions(worker: Worker) -> int:
    """Return how many partitions the worker was given last."""
    return int(worker.said("partitions.assigned")[-1]["count"])


async def two_members(scene: Scene, **environment: str) -> tuple[Worker, Worker]:
    """Return two static members that share the partitions, and have settled."""
    environment |= lanes_of(50)
    first = scene.worker(CORTEX_KAFKA__INSTANCE_ID="first", **environment)
    await first.is_ready()
    second = scene.worker(CORTEX_KAFKA__INSTANCE_ID="second", **environment)
    await second.is_ready()
    await first.says("rebalance.over")
    return first, second


async def test_a_static_member_back_within_the_session_timeout_costs_the_others_no_rebalance(
    scene: Scene,
) -> None:
    # given
    patient = {"CORTEX_KAFKA__SESSION_TIMEOUT_S": "30"}
    staying, leaving = await two_members(scene, **patient)
    before = await rebalances(staying)
    assigned = len(staying.said("partitions.assigned"))

    # when
    code, _ = await leaving.terminate()
    back = scene.worker(CORTEX_KAFKA__INSTANCE_ID="second", **patient)
    await back.is_ready()
    await scene.answered(await scene.ask(500, ms=20))

    # then
    assert code == 0
    assert {answer["pid"] for answer in scene.answers} == {staying.process.pid, back.process.pid}
    assert await rebalances(staying) == before
    assert len(staying.said("partitions.assigned")) == assigned


async def test_a_static_member_that_stays_away_loses_its_partitions_to_the_others(
    scene: Scene,
) -> None:
    # given
    staying, leaving = await two_members(scene)
    before, had = await rebalances(staying), await partitions(staying)
    gone = int(leaving.said("partitions.assigned")[-1]["count"])

    # when
    leaving.process.send_signal(signal.SIGKILL)
    names = await scene.ask(500)
    await scene.answered(names)
    await staying.says("rebalance.over", times=before + 1)

    # then
    assert await partitions(staying) == had + gone
    assert await rebalances(staying) == before + 1


async def test_the_pause_of_a_rebalance_is_measured_and_shown(scene: Scene) -> None:
    # given
    first = scene.worker(**lanes_of(50))
    await first.is_ready()
    assert await rebalances(first) == 0, "the first assignment interrupts nothing"
    names = await scene.ask(3000, ms=100)

    # when
    second = scene.worker(**lanes_of(50))
    await second.is_ready()
    await eventually(lambda: len(first.said("rebalance.over")) == 1)
    await scene.answered(names)

    # then
    (over,) = first.said("rebalance.over")
    _, text = await first.get("/metrics")
    total_s = re.search(rf"^{PAUSE}_sum (\S+)$", text, re.MULTILINE)
    assert total_s is not None
    print(f"pause of {over['pause_s']} s")
    assert 0 < over["pause_s"] < 5
    assert float(total_s[1]) == pytest.approx(over["pause_s"], abs=0.001)
