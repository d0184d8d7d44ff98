"""How long one turn of the event loop keeps its thread busy."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from time import thread_time

from agents.faust_app import spare_collections


@contextmanager
def measured_turns() -> Iterator[list[float]]:
    """Collect the CPU seconds that this thread spends in each turn of the running loop.

    CPU and not wall time, so that a busy machine does not look like a busy loop. Full collections
    are as rare as in a worker: one would count as somebody's turn.
    """
    thresholds = gc.get_threshold()
    spare_collections()
    loop = asyncio.get_running_loop()
    run_once = loop._run_once  # type: ignore[attr-defined] # one turn; no public name for it
    turns_s: list[float] = []

    def timed() -> None:
        began_s = thread_time()
        run_once()
        turns_s.append(thread_time() - began_s)

    loop._run_once = timed  # type: ignore[attr-defined]
    try:
        yield turns_s
    finally:
        loop._run_once = run_once  # type: ignore[attr-defined]
        gc.set_threshold(*thresholds)
        gc.unfreeze()
