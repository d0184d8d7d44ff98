"""Lanes do not hold one another up; events keep their order; nothing holds the event loop."""

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from cortex_stream.clock import SystemClock
from schemas.priority import Lane
from tests.integration.agents.scene import STUB, Scene
from topics.names import EVENTS, request_topic

pytestmark = pytest.mark.integration

REFUSING = (str(Path(__file__).with_name("refusing_worker.py")),)


@pytest.mark.alone
async def test_a_lane_that_is_stuck_holds_no_other(scene: Scene) -> None:
    await scene.ask(3000, lanes=[Lane.CRITICAL], do="hang")
    clock = SystemClock()

    worker = scene.worker(CORTEX_LANES__CRITICAL="100")
    await worker.is_ready()
    waits_s = []
    for _ in range(10):
        began_s = clock.monotonic_s()
        await scene.answered(await scene.ask(20, lanes=[Lane.HIGH, Lane.LOW]))
        waits_s.append(clock.monotonic_s() - began_s)

    assert max(waits_s) < 1.0
    assert await scene.committed_but_unanswered() == []


async def test_outcomes_that_nobody_takes_hold_no_others_and_fill_no_log(scene: Scene) -> None:
    # More than may be on their way to the broker at once.
    low = request_topic(Lane.LOW)
    await scene.send([(low, {"id": f"refused-{n}"}) for n in range(800)])

    worker = scene.worker(REFUSING, CORTEX_LANES__LOW="800")
    await worker.says("producer.unreachable")
    await worker.says("web.listening")
    for _ in range(5):
        await scene.answered(await scene.ask(50, lanes=[Lane.HIGH]), patience_s=10)

    assert len(worker.said("producer.unreachable")) == 1
    assert worker.said("producer.nothing_waits") == []
    assert await scene.committed_but_unanswered() == []


@pytest.mark.alone
async def test_a_full_lane_goes_on_as_soon_as_there_is_room(scene: Scene) -> None:
    # 12 requests at a time of 20 ms each: 600 a second, if room is noticed when it comes back
    # rather than at the end of a poll of one second.
    names = await scene.ask(600, lanes=[Lane.LOW], ms=20)
    clock = SystemClock()

    worker = scene.worker(CORTEX_LANES__LOW="12")
    await scene.answered(names[:1])
    began_s = clock.monotonic_s()
    await scene.answered(names)

    assert clock.monotonic_s() - began_s < 6.0
    assert worker.process.poll() is None


async def test_the_events_of_a_subject_take_effect_in_their_order(scene: Scene) -> None:
    names = await scene.send([(EVENTS, {"id": f"subject{n % 11}-{n}"}) for n in range(3000)])

    scene.worker()
    await scene.answered(names)

    effects = defaultdict(list)
    for answer in scene.answers:
        subject, number = answer["id"].split("-")
        effects[subject].append(int(number))
    assert len(effects) == 11
    assert all(
        before < after for numbers in effects.values() for before, after in pairwise(numbers)
    )


@pytest.mark.alone
async def test_no_turn_of_the_event_loop_takes_more_than_50_ms_of_cpu(
    scene: Scene, tmp_path: Path
) -> None:
    turns = tmp_path / "turns"
    await scene.send([(EVENTS, {"spin_us": 300}) for _ in range(2000)])
    await scene.ask(6000, spin_us=300)
    # Of the size that a request may have at most.
    large = await scene.ask(20, pad="x" * 1_000_000)

    scene.worker((*STUB, "--slowest-turn", str(turns)))
    await scene.answered(list(scene.sent), patience_s=60)

    assert large
    slowest_ms = float(turns.read_text())
    assert 0 < slowest_ms <= 50
