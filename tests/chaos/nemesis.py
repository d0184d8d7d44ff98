"""What is done to workers. Each heals what it broke, and leaves a worker that works."""

import asyncio
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil
from aiokafka.errors import KafkaError

from tests.acceptance.system import WorkerProcess
from tests.chaos.replayed import BEGUN, CANCELLED, LOW
from tests.chaos.scene import SESSION_TIMEOUT_S, Scene

POINTS = {
    "after-poll": 5,
    "after-parse": 60,
    "after-queue": 60,
    "after-batch": 30,
    "after-infer": 30,
    "before-produce": 60,
    "after-produce": 30,
    "after-confirm": 60,
    "after-finish": 60,
    "during-commit": 2,
    "after-commit": 2,
    "during-drain": 1,
}
"""Where a worker dies, and after how many passages at most."""
_GRACE_S = 6.0  # 2 s for what runs, 4 s for commit and leaving
_LATE_S = 2.0
_START_AGAIN_S = 0.2
_SETTLED = 200  # outcomes by which a group has its members
_CANCELLED_WITHIN_S = 5.0
_USUAL_PACE = 1500  # outcomes that tell what a worker does when nobody disturbs it


# ---- the worker ------------------------------------------------------------------------------------


async def killed_at_every_point(scene: Scene, draw: random.Random) -> None:
    """kill -9 at each of the code points, in a drawn order."""
    for point in draw.sample(list(POINTS), len(POINTS)):
        await _killed_at(scene, point, passage=draw.randint(1, POINTS[point]))
    await healed(scene)


async def _killed_at(scene: Scene, point: str, *, passage: int) -> None:
    worker = await healed(scene)
    await scene.progress(10)
    if point == "during-drain":
        dying = asyncio.ensure_future(scene.dies_at(worker, point, passage=1, timeout_s=15))
        await asyncio.sleep(0.1)
        worker.signal(signal.SIGTERM)
        died = await dying
    else:
        died = await scene.dies_at(worker, point, passage=passage, timeout_s=25)
    assert died, f"{worker.log}: never passed {point}"
    await scene.after_death(point)


async def killed_at_random(scene: Scene, draw: random.Random) -> None:
    """kill -9 at ten random moments."""
    for _ in range(10):
        worker = await healed(scene)
        await scene.progress(1)
        await asyncio.sleep(draw.uniform(0, 1.5))
        await scene.kill(worker, "kill -9")
    await healed(scene)


async def killed_once(scene: Scene, draw: random.Random) -> None:
    """kill -9 after a few commits."""
    worker = await healed(scene)
    await asyncio.sleep(draw.uniform(3, 4))
    await scene.kill(worker, "kill -9")
    await healed(scene)


async def terminated(scene: Scene, draw: random.Random) -> None:
    """SIGTERM under load; then while a run takes twice the grace; SIGKILL at the grace's end."""
    worker = await healed(scene)
    await scene.progress(20)
    await asyncio.sleep(draw.uniform(0, 1))
    await _terminate(scene, worker)
    worker = await healed(scene)
    await scene.progress(20)
    await scene.load.send_now([scene.load.traffic.of_kind("slow")])
    await asyncio.sleep(draw.uniform(0.5, 1))
    await _terminate(scene, worker)
    await healed(scene)


async def _terminate(scene: Scene, worker: WorkerProcess) -> None:
    scene.note("inject", "SIGTERM")
    scene.expect(worker, 0, 1, 3)  # 3: it cut itself off, which the grace allows
    worker.signal(signal.SIGTERM)
    try:
        await worker.ended(_GRACE_S + _LATE_S)
    except subprocess.TimeoutExpired:
        scene.expect(worker)  # not even -9 was to be needed
        worker.kill()
    await scene.after_death("SIGTERM")


async def frozen(scene: Scene, draw: random.Random, *, sessions: float = 2.5) -> None:
    """SIGSTOP a worker for longer than its session, while another takes its partitions over."""
    zombie = await healed(scene)
    await scene.worker()
    await scene.progress(20)
    scene.note("inject", "SIGSTOP")
    zombie.signal(signal.SIGSTOP)
    await asyncio.sleep(SESSION_TIMEOUT_S * draw.uniform(sessions - 0.5, sessions + 0.5))
    zombie.signal(signal.SIGCONT)
    scene.note("heal", "SIGCONT")
    await scene.progress(200)


async def crowded(scene: Scene, draw: random.Random) -> None:
    """For half a minute a worker joins or leaves every three seconds; none stays."""
    await healed(scene)
    end_s = scene.clock.monotonic_s() + 30
    while scene.clock.monotonic_s() < end_s:
        scene.note("inject", "join or leave")
        running = scene.running()
        if len(running) < 2 or (len(running) < 4 and draw.random() < 0.5):
            scene.start_worker()
        else:
            _leave(scene, draw.choice(running[:-1]), draw)
        await asyncio.sleep(3)
    while len(running := scene.running()) > 1:
        scene.expect(running[0], 0, -signal.SIGTERM, 3)
        await running[0].terminate(20)
    await running[0].ready(60)
    scene.note("heal", "one worker stays")


async def visited(scene: Scene, draw: random.Random) -> None:
    """For three minutes two workers join and leave beside one that stays, a move every 3 s."""
    await healed(scene)
    await scene.progress(_USUAL_PACE)
    visitors: list[WorkerProcess] = []
    end_s = scene.clock.monotonic_s() + 180
    while scene.clock.monotonic_s() < end_s:
        scene.note("inject", "join or leave")
        if len(visitors) < 2:
            visitors.append(scene.start_worker())
        else:
            _leave(scene, visitors.pop(0), draw)
        await asyncio.sleep(3)
    for visitor in visitors:
        _leave(scene, visitor, draw)
    scene.note("heal", "one worker stays")


def _leave(scene: Scene, worker: WorkerProcess, draw: random.Random) -> None:
    number = draw.choice((signal.SIGTERM, signal.SIGKILL))
    scene.expect(worker, 0, -number, 3)
    worker.signal(number)


async def starved(scene: Scene, draw: random.Random) -> None:
    """A fifth of a processor: stopped for 80 ms of each 100, for 15 s."""
    worker = await healed(scene)
    await scene.progress(20)
    scene.note("inject", "starved")
    for _ in range(150):
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(0.08)
        worker.signal(signal.SIGCONT)
        await asyncio.sleep(draw.uniform(0.018, 0.022))
    scene.note("heal", "starved")


async def poisoned(scene: Scene, draw: random.Random) -> None:
    """Two records that kill their worker, and others that break the model."""
    async with supervisor(scene):
        await scene.progress(50)
        traffic = scene.load.traffic
        kinds = draw.sample(["poison_kill"] * 2 + ["poison_raise"] * 10, 12)
        await scene.load.send_now([traffic.of_kind(kind) for kind in kinds])
        await asyncio.sleep(draw.uniform(8, 10))
        scene.load.rate_per_s = 0
        assert await scene.drained(timeout_s=90), "not drained after the poison"


async def stuck(scene: Scene, draw: random.Random) -> None:
    """One run that never comes back; whoever gives up is started again."""
    async with supervisor(scene):
        await scene.progress(50)
        await scene.load.send_now([scene.load.traffic.of_kind("poison_stuck")])
        await asyncio.sleep(draw.uniform(8, 10))
        scene.load.rate_per_s = 0
        assert await scene.drained(timeout_s=90), "not drained after the stuck run"


async def left_alone(scene: Scene, draw: random.Random) -> None:
    """Nothing but what the load does."""
    await healed(scene)
    await asyncio.sleep(10 + draw.uniform(0, 1))


async def restarted_in_time(scene: Scene, draw: random.Random) -> None:
    """A static member is back within its session, twice; then it stays away for longer.

    The other member must see no rebalance, and then at least one.
    """
    session_s = 15.0
    mine = {
        "CORTEX_KAFKA__INSTANCE_ID": "leaving",
        "CORTEX_KAFKA__SESSION_TIMEOUT_S": str(session_s),
    }
    staying = await scene.worker(**{**mine, "CORTEX_KAFKA__INSTANCE_ID": "staying"})
    leaving = await scene.worker(**mine)
    scene.note("heal", "two static members are ready")
    await scene.progress(_SETTLED)
    numbers = draw.sample([signal.SIGKILL, signal.SIGTERM], 2)
    for number, away_s in ((numbers[0], 0.0), (numbers[1], 0.0), (signal.SIGKILL, session_s + 3)):
        before = _rebalances(staying)
        scene.note("inject", f"a static member gets {number.name} and is away for {away_s:g} s")
        scene.expect(leaving, 0, -signal.SIGKILL)
        leaving.signal(number)
        await leaving.ended(_GRACE_S + _LATE_S)
        await asyncio.sleep(away_s)
        leaving = await scene.worker(**mine)
        scene.note("heal", "the static member is back")
        await scene.progress(_SETTLED)
        seen = _rebalances(staying) - before
        assert (seen > 0) is (away_s > session_s), f"{seen} rebalances after {away_s:g} s"


def _rebalances(worker: WorkerProcess) -> int:
    """Return how often the worker was given partitions."""
    return worker.log.read_text(encoding="utf-8").count('"event":"partitions.assigned"')


async def out_of_descriptors(scene: Scene, draw: random.Random) -> None:
    """A worker that may open no more files loses its connections; one that can open few is started.

    There must be work again once the first may; the second must say why it is never ready.
    """
    async with supervisor(scene):
        await scene.progress(100)
        (worker,) = scene.running()
        process = psutil.Process(worker.pid)
        usual = process.rlimit(psutil.RLIMIT_NOFILE)
        scene.note("inject", "no more descriptors")
        process.rlimit(psutil.RLIMIT_NOFILE, (3, usual[1]))
        scene.proxy.reset_all()
        await asyncio.sleep(draw.uniform(8, 12))
        process.rlimit(psutil.RLIMIT_NOFILE, usual)
        scene.note("heal", "descriptors again")
        await scene.progress(2 * _SETTLED, timeout_s=60)
    poor = scene.start_worker()
    few = draw.randint(8, 14)
    psutil.Process(poor.pid).rlimit(psutil.RLIMIT_NOFILE, (few, usual[1]))
    scene.expect(poor, -signal.SIGKILL, *range(1, 256))
    async with asyncio.timeout(40):
        while "Too many open files" not in poor.tail():
            await asyncio.sleep(0.2)
    await asyncio.sleep(10)
    ready = (await asyncio.to_thread(poor.get, "/readyz"))[0] == 200
    assert poor.returncode != 0, f"a worker with {few} descriptors ended as if all were well"
    assert not ready, f"a worker with {few} descriptors is ready"
    poor.kill()


async def model_down(scene: Scene, draw: random.Random) -> None:
    """Every run fails for some seconds, so that all requests want to be tried again."""
    await healed(scene)
    await scene.progress(300)
    scene.note("inject", "every run fails")
    scene.break_model()
    await asyncio.sleep(draw.uniform(8, 10))
    scene.mend_model()
    scene.note("heal", "runs succeed again")
    await scene.progress(200)


async def replayed(scene: Scene, draw: random.Random) -> None:
    """Five replays of one lane at once: one is killed and resumed, one is cancelled."""
    await healed(scene)
    await scene.progress(300)
    names = [f"replay-{number}" for number in range(5)]
    killed, cancelled = draw.sample(names[2:], 2)  # the first may be done by then
    running = {}
    for name in names:
        scene.note("inject", f"{BEGUN}{name}")
        running[name] = await scene.command(
            "replay", "--topic", LOW, "--id", name, "--rate", "10/s"
        )
        await asyncio.sleep(1)  # beginning costs a processor, and the workers need one
    await asyncio.sleep(draw.uniform(3, 5))
    running[killed].kill()
    await running[killed].wait()
    running[killed] = await scene.command("replay", "resume", killed)
    scene.note("inject", f"{CANCELLED}{cancelled}")
    assert await (await scene.command("replay", "cancel", cancelled)).wait() == 0
    async with asyncio.timeout(_CANCELLED_WITHIN_S):
        assert await running.pop(cancelled).wait() == 1
    for name, process in running.items():
        assert await process.wait() == 0, f"{name} failed"
    scene.note("heal", "the replays are over")
    await scene.progress(100)


# ---- recovery --------------------------------------------------------------------------------------


async def healed(scene: Scene) -> WorkerProcess:
    """Start a worker and return it once it is ready, which heals whatever came before."""
    worker = await scene.worker()
    scene.note("heal", "a worker is ready")
    return worker


@asynccontextmanager
async def supervisor(scene: Scene) -> AsyncIterator[None]:
    """Keep one worker running, as a supervisor of the operating system would."""
    await healed(scene)

    async def keep() -> None:
        while True:
            if not scene.running():
                with suppress(KafkaError, TimeoutError, OSError):  # while nobody can be asked
                    await scene.after_death("ended")
                await asyncio.sleep(_START_AGAIN_S)
                scene.start_worker()
            await asyncio.sleep(0.1)

    task = asyncio.get_running_loop().create_task(keep())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if not scene.running():
        await healed(scene)
