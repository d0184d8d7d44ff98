"""What is done to the broker, the network and Redis. Each heals it, and leaves a worker that works."""

import asyncio
import random
import signal
from collections.abc import Sequence
from dataclasses import replace

from tests.chaos.nemesis import healed, supervisor
from tests.chaos.proxy import DOWN, FAIR, HALF_OPEN, Direction, Weather
from tests.chaos.scene import Scene

_WARM = 1000  # outcomes after which a worker holds the memory that it will hold
_AFTERWARDS = 500
_MORE_THAN_A_BACKLOG = 4000  # the load holds 3,000 back for a broker that is away

# ---- the broker ------------------------------------------------------------------------------------


async def broker_restarted(scene: Scene, draw: random.Random) -> None:
    """A clean stop of the broker for 20 s."""
    await _without_broker(scene, signal.SIGTERM, down_s=draw.uniform(18, 22))


async def broker_killed(scene: Scene, draw: random.Random) -> None:
    """kill -9 of the broker, started again after a moment on the data it left."""
    await _without_broker(scene, signal.SIGKILL, down_s=draw.uniform(0, 3))


async def broker_gone(scene: Scene, draw: random.Random, *, for_s: float) -> None:
    """The broker away for longer than workers put up with; those that end are started again."""
    async with supervisor(scene):
        await _without_broker(scene, signal.SIGKILL, down_s=for_s + draw.uniform(0, 3))


async def broker_frozen(
    scene: Scene, draw: random.Random, *, for_s: tuple[float, ...] = (5, 15, 60), times: int = 1
) -> None:
    """SIGSTOP of the broker."""
    async with supervisor(scene):
        await scene.progress(_WARM)
        for number in range(times):
            if number:
                await scene.progress(_MORE_THAN_A_BACKLOG, timeout_s=90)
            scene.note("inject", "SIGSTOP of the broker")
            scene.services.send("kafka", signal.SIGSTOP)
            await asyncio.sleep(draw.choice(for_s))
            scene.services.send("kafka", signal.SIGCONT)
            scene.note("heal", "SIGCONT of the broker")
            await scene.progress(_AFTERWARDS, timeout_s=90)


async def _without_broker(scene: Scene, number: signal.Signals, *, down_s: float) -> None:
    if not scene.running():
        await healed(scene)
    await scene.progress(_WARM)
    scene.note("inject", f"{number.name} of the broker")
    if number is signal.SIGTERM:
        await asyncio.to_thread(scene.services.stop)
    else:
        scene.services.send("kafka", number)
    await asyncio.sleep(down_s)
    await asyncio.to_thread(scene.services.start)
    scene.note("heal", "the broker is back")
    await scene.progress(_AFTERWARDS, timeout_s=90)


async def results_refused(scene: Scene, draw: random.Random) -> None:
    """The topic of results demands more replicas than there are, for 10 to 15 s."""
    await healed(scene)
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
    async with supervisor(scene):
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


async def disconnected(scene: Scene, draw: random.Random) -> None:
    """Nothing arrives in either direction for five seconds, three times; connections stay open."""
    async with supervisor(scene):
        await scene.progress(_WARM)
        for _ in range(3):
            await _weather(scene, HALF_OPEN, for_s=5)
            await asyncio.sleep(draw.uniform(11, 13))
            await scene.progress(1)


async def slow_link(scene: Scene, draw: random.Random) -> None:
    """1 Mbit/s, and up to 200 ms of jitter, for 30 s."""
    await healed(scene)
    slow = Weather(latency_s=0.02, jitter_s=0.2, bytes_per_s=125_000)
    await _weather(scene, slow, for_s=draw.uniform(28, 32))


async def flapping(scene: Scene, draw: random.Random) -> None:
    """The broker cannot be reached for about five seconds, six times."""
    async with supervisor(scene):
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
    await healed(scene)
    await scene.progress(20)
    await _without_redis(scene, for_s=draw.uniform(4, 8))
    scene.note("inject", "SIGSTOP of Redis")
    scene.services.send("redis", signal.SIGSTOP)
    await asyncio.sleep(draw.uniform(4, 6))
    scene.services.send("redis", signal.SIGCONT)
    scene.note("heal", "SIGCONT of Redis")


async def redis_gone(scene: Scene, draw: random.Random) -> None:
    """Redis killed, for a minute."""
    await healed(scene)
    await scene.progress(_WARM)
    await _without_redis(scene, for_s=draw.uniform(60, 62))
    await scene.progress(_AFTERWARDS)


async def _without_redis(scene: Scene, *, for_s: float) -> None:
    scene.note("inject", "SIGKILL of Redis")
    scene.services.send("redis", signal.SIGKILL)
    await asyncio.sleep(for_s)
    await asyncio.to_thread(scene.services.start, "redis")
    scene.note("heal", "Redis is back")


async def swizzled(scene: Scene, draw: random.Random) -> None:
    """Broker, Redis and worker killed, frozen and healed in a drawn order."""
    async with supervisor(scene):
        for _ in range(6):
            await scene.progress(1, timeout_s=90)
            victim = draw.choice(("kafka", "redis", "worker"))
            worker = draw.choice(scene.running() or [scene.start_worker()])
            freeze = draw.random() < 0.5
            scene.note("inject", f"{'SIGSTOP' if freeze else 'SIGKILL'} of {victim}")
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
