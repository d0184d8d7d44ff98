"""One round: a fault, a seed, a verdict."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cortex_stream.clock import SystemClock
from tests.chaos.broker import Services
from tests.chaos.case import Case
from tests.chaos.checker import Verdict, check
from tests.chaos.evidence import read_evidence
from tests.chaos.faults import Fault
from tests.chaos.load import Traffic
from tests.chaos.scene import Scene

_DRAIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one fault with one seed. `error`: the round itself broke down."""

    fault: str
    what: str
    seed: int
    folder: Path
    took_s: float
    verdict: Verdict | None
    error: str | None = None

    @property
    def holds(self) -> bool:
        return self.error is None and self.verdict is not None and self.verdict.holds


async def run_round(
    name: str,
    fault: Fault,
    seed: int,
    services: Services,
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
) -> Round:
    """Inject the fault under load, let everything heal and drain, and judge what is left.

    Args:
        environment: of the workers, on top of the fault's own.
    """
    clock = SystemClock()
    began_s = clock.monotonic_s()
    try:
        async with asyncio.timeout(fault.bound_s):
            verdict = await _judged(fault, seed, services, folder, environment or {})
    except Exception as error:  # noqa: BLE001 (a round that breaks down is a finding, too)
        took_s = clock.monotonic_s() - began_s
        return Round(
            name, fault.what, seed, folder, took_s, None, f"{type(error).__name__}: {error}"
        )
    return Round(name, fault.what, seed, folder, clock.monotonic_s() - began_s, verdict)


async def _judged(
    fault: Fault, seed: int, services: Services, folder: Path, environment: Mapping[str, str]
) -> Verdict:
    traffic = Traffic(seed, fault.mix, deadline_ms=fault.deadline_ms, lane_shares=fault.lane_shares)
    scene = Scene(
        services,
        folder,
        traffic,
        rate_per_s=fault.rate_per_s,
        proxied=fault.proxied,
        environment={**fault.environment, **environment},
        exits=fault.exits,
    )
    async with scene:
        async with scene.load:
            await fault.inject(scene, random.Random(seed))  # noqa: S311 (a schedule, not a secret)
        await scene.drained(timeout_s=_DRAIN_S)
        for worker in scene.running():
            await scene.stop(worker)
        await scene.after_death("end")
        evidence = await read_evidence(services.direct, scene.prefix, scene.topics, folder)
    return check(Case(evidence, fault.allowed), fault.invariants)
