"""What is done to a running system. Each heals what it broke, and leaves a worker that works."""

import asyncio
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.acceptance.system import WorkerProcess
from tests.chaos.proxy import DOWN, FAIR, HALF_OPEN, Direction, Weather
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


# ---- the worker ------------------------------------------------------------------------------------


async def killed_at_every_point(scene: Scene, draw: random.Random) -> None:
    """kill -9 at each of the code points, in a drawn order."""
    for point in draw.sample(list(POINTS), len(POINTS)):
        await _killed_at(scene, point, passage=draw.randint(1, POINTS[point]))
    await _healed(scene)


async def _killed_at(scene: Scene, point: str, *, passage: int) -> None:
    worker = await _healed(scene)
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
        worker = await _healed(scene)
        await scene.progress(1)
        await asyncio.sleep(draw.uniform(0, 1.5))
        await scene.kill(worker, "kill -9")
    await _healed(scene)


async def killed_once(scene: Scene, draw: random.Random) -> None:
    """kill -9 after a few commits."""
    worker = await _healed(scene)
    await asyncio.sleep(draw.uniform(3, 4))
    await scene.kill(worker, "kill -9")
    await _healed(scene)


async def terminated(scene: Scene, draw: random.Random) -> None:
    """SIGTERM under load; then while a run takes twice the grace; SIGKILL at the grace's end."""
    worker = await _healed(scene)
    await scene.progress(20)
    await asyncio.sleep(draw.uniform(0, 1))
    await _terminate(scene, worker)
    worker = await _healed(scene)
    await scene.progress(20)
    await scene.load.send_now([scene.load.traffic.of_kind("slow")])
    await asyncio.sleep(draw.uniform(0.5, 1))
    await _terminate(scene, worker)
    await _healed(scene)


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


async def frozen(scene: Scene, draw: random.Random) -> None:
    """SIGSTOP a worker for longer than its session, while another takes its partitions over."""
    zombie = await _healed(scene)
    await scene.worker()
    await scene.progress(20)
    scene.note("inject", "SIGSTOP")
    zombie.signal(signal.SIGSTOP)
    await asyncio.sleep(SESSION_TIMEOUT_S * draw.uniform(2, 3))
    zombie.signal(signal.SIGCONT)
    scene.note("heal", "SIGCONT")
    await scene.progress(200)


async def crowded(scene: Scene, draw: random.Random, *, for_s: float = 30.0) -> None:
    """Workers join and leave every three seconds, some by SIGTERM, some by SIGKILL."""
    await _healed(scene)
    end_s = scene.clock.monotonic_s() + for_s
    while scene.clock.monotonic_s() < end_s:
        scene.note("inject", "join or leave")
        running = scene.running()
        if len(running) < 2 or (len(running) < 4 and draw.random() < 0.5):
            scene.start_worker()
        else:
            leaving = draw.choice(running[:-1])
            number = draw.choice((signal.SIGTERM, signal.SIGKILL))
            scene.expect(leaving, 0, -number, 3)
            leaving.signal(number)
        await asyncio.sleep(3)
    while len(running := scene.running()) > 1:
        scene.expect(running[0], 0, -signal.SIGTERM, 3)
        await running[0].terminate(20)
    await running[0].ready(60)
    scene.note("heal", "one worker stays")


async def crowded_for_long(scene: Scene, draw: random.Random) -> None:
    """The same for three minutes."""
    await crowded(scene, draw, for_s=180)


async def starved(scene: Scene, draw: random.Random) -> None:
    """A fifth of a processor: stopped for 80 ms of each 100, for 15 s."""
    worker = await _healed(scene)
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
    async with _supervisor(scene):
        await scene.progress(50)
        traffic = scene.load.traffic
        kinds = draw.sample(["poison_kill"] * 2 + ["poison_raise"] * 10, 12)
        await scene.load.send_now([traffic.of_kind(kind) for kind in kinds])
        await asyncio.sleep(draw.uniform(8, 10))
        scene.load.rate_per_s = 0
        assert await scene.drained(timeout_s=90), "not drained after the poison"


async def stuck(scene: Scene, draw: random.Random) -> None:
    """One run that never comes back; whoever gives up is started again."""
    async with _supervisor(scene):
        await scene.progress(50)
        await scene.load.send_now([scene.load.traffic.of_kind("poison_stuck")])
        await asyncio.sleep(draw.uniform(8, 10))
        scene.load.rate_per_s = 0
        assert await scene.drained(timeout_s=90), "not drained after the stuck run"


async def left_alone(scene: Scene, draw: random.Random) -> None:
    """Nothing but what the load does."""
    await _healed(scene)
    await asyncio.sleep(10 + draw.uniform(0, 1))


# ---- the broker ------------------------------------------------------------------------------------


async def broker_restarted(scene: Scene, draw: random.Random) -> None:
    """A clean stop of the broker for 20 s."""
    await _without_broker(scene, signal.SIGTERM, down_s=draw.uniform(18, 22))


async def broker_killed(scene: Scene, draw: random.Random) -> None:
    """kill -9 of the broker, started again after a moment on the data it left."""
    await _without_broker(scene, signal.SIGKILL, down_s=draw.uniform(0, 3))


async def broker_gone(scene: Scene, draw: random.Random) -> None:
    """The broker away for longer than two minutes; workers that give up are started again."""
    async with _supervisor(scene):
        await _without_broker(scene, signal.SIGKILL, down_s=draw.uniform(125, 135))


async def broker_frozen(scene: Scene, draw: random.Random) -> None:
    """SIGSTOP of the broker for 5, 15 or 60 s."""
    async with _supervisor(scene):
        await scene.progress(20)
        scene.note("inject", "SIGSTOP of the broker")
        scene.services.send("kafka", signal.SIGSTOP)
        await asyncio.sleep(draw.choice((5, 15, 60)))
        scene.services.send("kafka", signal.SIGCONT)
        scene.note("heal", "SIGCONT of the broker")
        await scene.progress(50, timeout_s=90)


async def _without_broker(scene: Scene, number: signal.Signals, *, down_s: float) -> None:
    if not scene.running():
        await _healed(scene)
    await scene.progress(20)
    scene.note("inject", f"{number.name} of the broker")
    if number is signal.SIGTERM:
        await asyncio.to_thread(scene.services.stop)
    else:
        scene.services.send("kafka", number)
    await asyncio.sleep(down_s)
    await asyncio.to_thread(scene.services.start)
    scene.note("heal", "the broker is back")
    await scene.progress(50, timeout_s=90)


async def results_refused(scene: Scene, draw: random.Random) -> None:
    """The topic of results demands more replicas than there are, for 10 to 15 s."""
    await _healed(scene)
    await scene.progress(20)
    scene.note("inject", "min.insync.replicas=2 on one replica")
    await scene.require_replicas(2)
    await asyncio.sleep(draw.uniform(10, 15))
    await scene.require_replicas(1)
    scene.note("heal", "min.insync.replicas=1")
    await scene.progress(50, timeout_s=90)


# ---- the network -----------------------------------------------------------------------------------


async def cut_off(scene: Scene, draw: random.Random) -> None:
    """One direction falls silent for 10 s; then half-open; then a reset every two seconds."""
    ways: Sequence[Direction] = ("up", "down")
    async with _supervisor(scene):
        await scene.progress(20)
        one_way = Weather(silent=frozenset({draw.choice(ways)}))
        for weather in draw.sample([one_way, HALF_OPEN], 2):
            await _weather(scene, weather, for_s=draw.uniform(6, 10))
        for _ in range(5):
            scene.note("inject", "reset")
            scene.proxy.reset_all()
            await asyncio.sleep(2)
        scene.note("heal", "no more resets")
        await scene.progress(50, timeout_s=90)


async def slow_link(scene: Scene, draw: random.Random) -> None:
    """1 Mbit/s, and up to 200 ms of jitter, for 30 s."""
    await _healed(scene)
    slow = Weather(latency_s=0.02, jitter_s=0.2, bytes_per_s=125_000)
    await _weather(scene, slow, for_s=draw.uniform(28, 32))


async def flapping(scene: Scene, draw: random.Random) -> None:
    """The broker cannot be reached for about five seconds, six times."""
    async with _supervisor(scene):
        for _ in range(6):
            await scene.progress(1, timeout_s=60)
            scene.proxy.weather = DOWN
            scene.note("inject", "down")
            scene.proxy.reset_all()
            await asyncio.sleep(draw.uniform(3, 6))
            scene.proxy.weather = FAIR
            scene.note("heal", "up")
            await asyncio.sleep(draw.uniform(3, 6))


async def _weather(scene: Scene, weather: Weather, *, for_s: float) -> None:
    scene.note("inject", str(weather))
    scene.proxy.weather = replace(weather)
    await asyncio.sleep(for_s)
    scene.proxy.weather = FAIR
    scene.note("heal", "fair weather")


# ---- Redis, and everything -------------------------------------------------------------------------


async def redis_away(scene: Scene, draw: random.Random) -> None:
    """Redis killed, then frozen, a few seconds each."""
    await _healed(scene)
    await scene.progress(20)
    await _without_redis(scene, draw)
    scene.note("inject", "SIGSTOP of Redis")
    scene.services.send("redis", signal.SIGSTOP)
    await asyncio.sleep(draw.uniform(4, 6))
    scene.services.send("redis", signal.SIGCONT)
    scene.note("heal", "SIGCONT of Redis")


async def _without_redis(scene: Scene, draw: random.Random) -> None:
    scene.note("inject", "SIGKILL of Redis")
    scene.services.send("redis", signal.SIGKILL)
    await asyncio.sleep(draw.uniform(4, 8))
    await asyncio.to_thread(scene.services.start, "redis")
    scene.note("heal", "Redis is back")


async def swizzled(scene: Scene, draw: random.Random) -> None:
    """Broker, Redis and worker killed, frozen and healed in a drawn order."""
    async with _supervisor(scene):
        for _ in range(6):
            await scene.progress(1, timeout_s=90)
            victim = draw.choice(("kafka", "redis", "worker"))
            worker = draw.choice(scene.running() or [scene.start_worker()])
            freeze = draw.random() < 0.5
            scene.note("inject", f"{victim} {'frozen' if freeze else 'killed'}")
            if victim == "worker":
                scene.expect(worker, -signal.SIGKILL, 0, 1, 3)
                worker.signal(signal.SIGSTOP if freeze else signal.SIGKILL)
                await asyncio.sleep(draw.uniform(1, 8))
                if freeze and worker.returncode is None:
                    worker.signal(signal.SIGCONT)
            else:
                scene.services.send(victim, signal.SIGSTOP if freeze else signal.SIGKILL)
                await asyncio.sleep(draw.uniform(1, 8))
                scene.services.send(victim, signal.SIGCONT)
                await asyncio.to_thread(scene.services.start, victim)
            scene.note("heal", victim)


# ---- recovery --------------------------------------------------------------------------------------


async def _healed(scene: Scene) -> WorkerProcess:
    """Start a worker and return it once it is ready, which heals whatever came before."""
    worker = await scene.worker()
    scene.note("heal", "a worker is ready")
    return worker


@asynccontextmanager
async def _supervisor(scene: Scene) -> AsyncIterator[None]:
    """Keep one worker running, as a supervisor of the operating system would."""
    await _healed(scene)

    async def keep() -> None:
        while True:
            if not scene.running():
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
        await _healed(scene)
