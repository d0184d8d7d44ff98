"""Does a worker's memory stay where it is? Minutes of steady load, memory read every second."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cortex_stream.clock import Clock, SystemClock
from cortex_stream.errors import OperatorError
from cortex_stream.loadtest.ledger import Ledger
from cortex_stream.loadtest.load import LoadRequest, embed_requests
from cortex_stream.loadtest.measure import usage
from cortex_stream.loadtest.report import Report, describe_machine, describe_model
from cortex_stream.loadtest.session import LoadSession
from cortex_stream.loadtest.worker_process import WorkerProcess
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.tree import Settings
from schemas.outcomes import OutcomeKind

GOAL_SPREAD: Final = 0.05
LOAD_SHARE: Final = 0.8
_SETTLED_AFTER_S: Final = 120.0
_EVERY_S: Final = 1.0
_CALIBRATION_TEXTS: Final = 2000
_CHUNK: Final = 1000  # requests made at a time, so that minutes of them are never all in memory


@dataclass(slots=True)
class _Memory:
    """Resident bytes of the worker, once per bite."""

    clock: Clock
    began_s: float
    samples: list[tuple[float, int]] = field(default_factory=list)

    def read(self, pid: int) -> None:
        self.samples.append((self.clock.monotonic_s() - self.began_s, usage(pid).rss_bytes))

    def settled(self, *, after_s: float) -> list[int]:
        return [rss_bytes for at_s, rss_bytes in self.samples if at_s >= after_s]


async def measure_soak(
    settings: Settings,
    *,
    model: ModelVersion,
    worker: WorkerProcess,
    texts: Sequence[str],
    minutes: float,
    seed: int,
    say: Callable[[str], None],
) -> Report:
    """Load the worker to 80 % of what it can do and watch its memory from minute 2 on.

    In runs shorter than four minutes, the first half is left out instead.

    Raises:
        OperatorError: an answer is missing, contradictory, or no result.
    """
    clock = SystemClock()
    async with LoadSession(settings, clock=clock, every_s=_EVERY_S) as session:
        # The better of two: the first one also warms everything up.
        bursts = [await _burst_rate_per_s(session, texts, worker, turn) for turn in range(2)]
        rate_per_s = LOAD_SHARE * max(bursts)
        say(f"{rate_per_s:.0f} requests/s for {minutes:g} minutes")
        before, memory = usage(worker.pid), _Memory(clock, clock.monotonic_s())

        def seen(ledger: Ledger) -> None:
            worker.check()
            memory.read(worker.pid)
            if len(memory.samples) % 60 == 0:  # about every minute
                say(f"{len(ledger.answers)} answered, {memory.samples[-1][1] / 1e6:.0f} MB")

        ledger = await session.steady(
            _endless(texts, seed=seed, until_s=memory.began_s + 60 * minutes, clock=clock),
            rate_per_s=rate_per_s,
            seed=seed,
            seen=seen,
        )
        elapsed_s = clock.monotonic_s() - memory.began_s
        cpu_s = usage(worker.pid).cpu_s - before.cpu_s
    if ledger.contradictions or ledger.kinds()[OutcomeKind.RESULT] != ledger.sent_count:
        raise OperatorError(
            f"checking the outcomes: {ledger.sent_count} requests, {dict(ledger.kinds())},"
            f" {len(ledger.contradictions)} contradictory"
        )
    settled = memory.settled(after_s=min(_SETTLED_AFTER_S, 30 * minutes))
    least, most_bytes = min(settled), max(settled)
    spread = (most_bytes - least) / (most_bytes + least)
    return Report(
        profile="soak",
        verdict=(
            f"Memory stays within ±{spread:.1%} of {(most_bytes + least) / 2e6:.0f} MB over"
            f" {minutes:g} minutes (goal ±{GOAL_SPREAD:.0%})."
        ),
        passed=spread <= GOAL_SPREAD,
        summary={
            "least MB": least / 1e6,
            "most MB": most_bytes / 1e6,
            "requests": ledger.sent_count,
            "requests/s": ledger.sent_count / elapsed_s,
            "CPU cores used": cpu_s / elapsed_s,
            "CPU ms per text": 1000 * cpu_s / ledger.sent_count,
            "missing outcomes": 0,
            "repeated deliveries": ledger.repetitions,
        },
        runs=[
            {
                "lane": lane.value,
                "requests": latency.count,
                "p50 ms": latency.p50_ms,
                "p95 ms": latency.p95_ms,
                "p99 ms": latency.p99_ms,
                "longest ms": latency.max_ms,
            }
            for lane, latency in ledger.latencies().items()
        ],
        method={
            **describe_machine(),
            "texts": "paragraphs of pydoc_data.topics, one per request, drawn at random",
            "model": describe_model(model),
            "seed": seed,
            "load": f"open loop, Poisson, {rate_per_s:.1f}/s: {LOAD_SHARE:.0%} of the better of two bursts",
            "latency": "from the produce time to the broker's append time of the outcome",
            "memory": "resident, worker and its children, every second from minute 2 on",
        },
    )


async def _burst_rate_per_s(
    session: LoadSession, texts: Sequence[str], worker: WorkerProcess, turn: int
) -> float:
    chosen = list(itertools.islice(itertools.cycle(texts), _CALIBRATION_TEXTS))
    requests = embed_requests(chosen, run=f"calibration{turn}", seed=turn)
    ledger = await session.burst(requests, seen=lambda _: worker.check())
    return ledger.sent_count / ledger.elapsed_s()


def _endless(
    texts: Sequence[str], *, seed: int, until_s: float, clock: Clock
) -> Iterator[LoadRequest]:
    """Yield requests until the time is over."""
    draw = random.Random(seed)  # noqa: S311 (a load, not a secret)
    for chunk in itertools.count():
        chosen = draw.choices(texts, k=_CHUNK)
        for request in embed_requests(chosen, run=f"soak{chunk}", seed=seed + chunk):
            if clock.monotonic_s() > until_s:
                return
            yield request
