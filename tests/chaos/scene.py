"""One round's system: its topics, workers, load and probe, and what the nemesis may do with them."""

import asyncio
import secrets
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self

from aiokafka.errors import KafkaError

from cortex_stream.clock import SystemClock
from cortex_stream.environment import subprocess_environment
from cortex_stream.kafka.admin import TopicAdmin
from cortex_stream.kafka.plan import AlterConfig, CreateTopic
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.tree import Settings
from tests.acceptance.system import WorkerProcess
from tests.chaos.broker import Services
from tests.chaos.case import READ_BY_WORKERS, RESULTS, TOPICS
from tests.chaos.history import Journal, written_places
from tests.chaos.load import Load, Traffic
from tests.chaos.probe import Offsets, Probing
from tests.chaos.proxy import Proxy

SESSION_TIMEOUT_S = 3.0
_SETTLE_S = 0.3  # what a killed process had sent reaches the log
_EXIT_S = 0.02


class Scene:
    """Everything of one round. Owner: the event loop that entered it."""

    def __init__(
        self,
        services: Services,
        folder: Path,
        traffic: Traffic,
        *,
        rate_per_s: float,
        proxied: bool = False,
        environment: Mapping[str, str] | None = None,
        exits: Iterable[int] = (),
    ) -> None:
        self.services = services
        self.folder = folder
        self.prefix = f"chaos-{secrets.token_hex(4)}"
        self.workers: list[WorkerProcess] = []
        self.barriers = folder / "barriers"
        self.proxy = Proxy(services.proxy_port, services.listener_port, seed=traffic.seed)
        self.clock = SystemClock()
        self.barriers.mkdir(parents=True)
        self._deeds = Journal(folder / "nemesis.jsonl")
        self._history = Journal(folder / "history.jsonl")
        self._snapshots = Journal(folder / "snapshots.jsonl")
        self._probes = Journal(folder / "probe.jsonl")
        self.load = Load(
            services.direct, self.prefix, traffic, self._history, rate_per_s=rate_per_s
        )
        self.topics: tuple[str, ...] = ()
        self._exits = {0, *exits}
        self._environment = {
            "KAFKA_BROKERS": services.proxied if proxied else services.direct,
            "REDIS_URL": services.redis_url,
            "CORTEX_KAFKA__TOPIC_PREFIX": self.prefix,
            "CORTEX_KAFKA__SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
            "CORTEX_KAFKA__HEARTBEAT_INTERVAL_S": "0.5",
            "CORTEX_MODELS__SERVE": '["stub"]',
            "CORTEX_MODELS__EMBED_DEFAULT": "stub",
            "CHAOS_BARRIERS": str(self.barriers),
            **(environment or {}),
        }
        self._expected: dict[int, set[int]] = {}
        self._watched: set[int] = set()
        self._life = AsyncExitStack()
        self._settings = Settings(
            kafka_brokers=services.direct, kafka=KafkaSettings(topic_prefix=self.prefix)
        )

    # ---- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        async with TopicAdmin(self._settings) as admin:
            changes = (await admin.plan()).changes
            await admin.apply(changes)
        created = {change.name for change in changes if isinstance(change, CreateTopic)}
        self.topics = tuple(topic for topic in TOPICS if f"{self.prefix}.{topic}" in created)
        self.offsets = Offsets(self.services.direct, self.prefix, self.topics)
        await self._life.enter_async_context(self.proxy)
        await self._life.enter_async_context(self.offsets)
        probing = Probing(self.offsets, self.running, self.proxy, self._probes)
        await self._life.enter_async_context(probing)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.running():
            worker.signal(signal.SIGCONT)
            worker.kill()
        if self.topics:
            with suppress(KafkaError, TimeoutError):
                await self.offsets.delete_topics()
        await self._life.aclose()
        for journal in (self._deeds, self._history, self._snapshots, self._probes):
            journal.close()

    # ---- workers ---------------------------------------------------------------------------------

    def running(self) -> list[WorkerProcess]:
        """Return the workers that run; what ended since the last call is noted."""
        running = []
        for worker in self.workers:
            code = worker.returncode
            if code is None:
                running.append(worker)
            elif worker.pid not in self._watched:
                self._watched.add(worker.pid)
                expected = code in self._expected.get(worker.pid, self._exits)
                self.note("exit", worker.log.name, code=code, expected=expected)
        return running

    def start_worker(self, **extra: str) -> WorkerProcess:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = subprocess_environment(
            **{**self._environment, "CORTEX_WEB__PORT": str(port), **extra}
        )
        log = self.folder / f"worker-{len(self.workers)}.log"
        command = ("-m", "tests.chaos.worker")
        worker = WorkerProcess(environment, log, port=port, command=command)
        self.workers.append(worker)
        return worker

    async def worker(self, **extra: str) -> WorkerProcess:
        """Start a worker; return once it is ready."""
        return await self.start_worker(**extra).ready(60)

    async def command(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start `cortex-stream` on this system; what it says is added to `cli.log`."""
        with (self.folder / "cli.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cortex_stream",
                *arguments,
                env=subprocess_environment(**self._environment),
                stdout=log,
                stderr=log,
            )

    def break_model(self) -> None:
        """Let every run of every worker fail from now on."""
        (self.barriers / "model-down").touch()

    def mend_model(self) -> None:
        """Let runs succeed again."""
        (self.barriers / "model-down").unlink()

    def expect(self, worker: WorkerProcess, *codes: int) -> None:
        """Let the worker end with one of these codes."""
        self._expected[worker.pid] = set(codes)

    async def stop(self, worker: WorkerProcess) -> int:
        """SIGTERM, and wait."""
        self.expect(worker, 0)
        code = await worker.terminate(20)
        self.running()
        return code

    async def kill(self, worker: WorkerProcess, label: str) -> None:
        """SIGKILL; then, unless other workers run, a snapshot."""
        self.expect(worker, -signal.SIGKILL)
        at_ms = self.clock.unix_ms()
        self.note("inject", label)
        worker.kill()
        await self.after_death(label, at_ms=at_ms)

    async def dies_at(
        self, worker: WorkerProcess, point: str, *, passage: int, timeout_s: float
    ) -> bool:
        """Have the worker kill itself at a point; return False where it never passed."""
        self.expect(worker, -signal.SIGKILL)
        self.note("inject", point)
        armed = self.barriers / point
        ready = armed.with_suffix(".new")
        ready.write_text(str(passage), encoding="utf-8")
        ready.rename(armed)
        try:
            async with asyncio.timeout(timeout_s):
                while worker.returncode is None:
                    await asyncio.sleep(_EXIT_S)
        except TimeoutError:
            armed.unlink(missing_ok=True)
            return False
        return True

    async def after_death(self, label: str, *, at_ms: int | None = None) -> None:
        """Write down what is committed, and then what lies on the topics, while no worker runs."""
        at_ms = at_ms or self.clock.unix_ms()
        if not self.running():
            await asyncio.sleep(_SETTLE_S)
            committed = await self.offsets.committed()
            self._snapshots.write(
                label=f"{label} #{len(self.workers)}",
                at_ms=at_ms,
                committed=written_places(committed),
                ends=written_places(await self.offsets.ends()),
            )

    async def require_replicas(self, count: int) -> None:
        """Let the topic of results take writes only from so many replicas."""
        name = f"{self.prefix}.{RESULTS}"
        change = AlterConfig(name, {"min.insync.replicas": (None, str(count))})
        async with TopicAdmin(self._settings) as admin:
            await admin.apply([change])

    # ---- what can be seen ------------------------------------------------------------------------

    def note(self, what: str, detail: str, *, code: int = 0, expected: bool = True) -> None:
        self._deeds.write(
            at_ms=self.clock.unix_ms(), what=what, detail=detail, code=code, expected=expected
        )

    async def outcomes(self) -> int:
        """Return how many outcome records there are."""
        ends = await self.offsets.ends()
        return sum(end for (topic, _), end in ends.items() if topic == RESULTS)

    async def progress(self, count: int, *, timeout_s: float = 40.0) -> None:
        """Wait for `count` further outcomes."""
        wanted = await self.outcomes() + count
        async with asyncio.timeout(timeout_s):
            while await self._outcomes_or_none() < wanted:
                await asyncio.sleep(0.05)

    async def drained(self, *, timeout_s: float) -> bool:
        """Wait until everything that workers read is committed; return False when it never is."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._is_drained():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        return True

    async def _outcomes_or_none(self) -> int:
        try:
            return await self.outcomes()
        except (KafkaError, TimeoutError, OSError):
            return -1

    async def _is_drained(self) -> bool:
        try:
            committed, ends = await self.offsets.committed(), await self.offsets.ends()
        except (KafkaError, TimeoutError, OSError):
            return False
        return all(
            committed.get(place, 0) >= end
            for place, end in ends.items()
            if place[0] in READ_BY_WORKERS
        )
