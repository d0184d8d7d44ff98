"""The limits of pipelines: how many work items at once, and for how long.

Owner: the event loop that runs the engine.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from cortex_stream.errors import StageTimeout
from cortex_stream.routing.pipeline import Pipeline
from cortex_stream.routing.route import StageName
from cortex_stream.scheduling.fair_gate import FairGate
from schemas.priority import Lane

F = TypeVar("F")


class Gates:
    """Before the stages of each limited pipeline one gate per lane.

    Per lane, so that low-priority items that wait never keep critical ones out.
    """

    def __init__(self, pipelines: Iterable[Pipeline]) -> None:
        self._gates = {
            (pipeline.name, lane): FairGate(pipeline.max_concurrent)
            for pipeline in pipelines
            if pipeline.max_concurrent is not None
            for lane in Lane
        }

    def of_or_none(self, pipeline: Pipeline, lane: Lane) -> FairGate | None:
        """Return the gate to go through, or None where the pipeline has no limit."""
        return None if pipeline.max_concurrent is None else self._gates[pipeline.name, lane]


def in_time(
    running: Coroutine[Any, Any, F], pipeline: Pipeline, stage: StageName
) -> Coroutine[Any, Any, F]:
    """Return what `stage` finds within the time that `pipeline` gives it, once awaited.

    Raises:
        StageTimeout: it took longer, waiting for a runner included, and was cancelled.
    """
    timeout_s = pipeline.timeouts_s.get(stage) if pipeline.timeouts_s else None
    return running if timeout_s is None else _in_time(running, timeout_s, pipeline, stage)


async def _in_time(
    running: Coroutine[Any, Any, F], timeout_s: float, pipeline: Pipeline, stage: StageName
) -> F:
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await running
    except TimeoutError:
        if not limit.expired():  # the stage's own
            raise
        raise StageTimeout(
            f"stage {stage.value} took longer than the {timeout_s:g} s of pipeline {pipeline.name}"
        ) from None
