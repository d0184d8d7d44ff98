"""Rows for the tests of the scheduler."""

from cortex_stream.deadline import Deadline
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.scheduling.fair_queue import FairQueue, Row
from schemas.priority import Lane

RULE = BatchRule(max_rows=8, max_tokens=256)
NOW_S = 1000.0


def row(
    lane: Lane = Lane.MEDIUM,
    length_tokens: int = 10,
    payload: str = "",
    *,
    tenant: str = "//a",
    enqueued_s: float = 0.0,
    deadline_s: float | None = None,
) -> Row[str]:
    deadline = None if deadline_s is None else Deadline(deadline_s)
    return Row(lane, tenant, length_tokens, enqueued_s, deadline, payload)


def queue_of(*rows: Row[str]) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue(batch_tokens=RULE.max_tokens)
    for waiting in rows:
        queue.push(waiting)
    return queue
