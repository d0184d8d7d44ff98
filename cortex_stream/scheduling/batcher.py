"""Which waiting rows run together: the head by fairness, its company by length.

A batch is made of what waits at this moment. It grows as long as the rule allows and the latency
model says that every row with a deadline in it will still be answered in time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Final, Generic, TypeVar

from cortex_stream.scheduling.fair_queue import FairQueue, Row
from cortex_stream.scheduling.latency_model import LatencyModel
from schemas.priority import Lane

LEAST_FILL: Final = 0.8
"""A companion must fill at least this share of the head's length. On a CPU a batch of eight saves
about a fifth of a text's cost (2.98 to 2.32 ms measured with int8 MiniLM), so beyond a fifth of
padding a row is cheaper in a batch of its own."""

MAX_LATE_ROWS: Final = 256
"""Late rows sorted out in one call, about 10 µs each: a lane full of them must not hold the event
loop up."""

REPLAY_PART: Final = 4
"""A batch of replays is a quarter of a full one: whoever interrupts it throws less away, and when it
no longer gives way, live rows wait for less."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchRule:
    """How large a batch of one device may be.

    Attributes:
        max_rows: rows at most.
        max_tokens: padded tokens, rows times the longest, at most; a longer head runs alone.
        brief_tokens: the same while newcomers come, who wait for its end; None: no less.
    """

    max_rows: int
    max_tokens: int
    brief_tokens: int | None = None

    def brief(self) -> "BatchRule":
        """Return the rule while newcomers come."""
        return replace(self, max_tokens=self.brief_tokens or self.max_tokens)


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """What was taken out of the queue.

    Attributes:
        rows: to run together, the longest first; empty when none was found.
        late: found on the way after their deadline, which must not run. They cost their lane
            nothing and take no place in the batch.
        is_trial: whether the one row is to show that it is in time, though nothing predicts it.
    """

    rows: list[Row[T]]
    late: list[Row[T]]
    is_trial: bool = False


def form_batch(
    queue: FairQueue[T],
    rule: BatchRule,
    *,
    now_s: float,
    latency: LatencyModel | None = None,
    replays: bool = True,
) -> Batch[T]:
    """Take the rows of the next batch out of `queue`. Never blocks.

    The head is the longest of the batch, so its length is what the others are padded to. With a
    latency model the batch grows no further once one more row would make a row of it late, and a
    row that would miss its deadline is late already: one that has no time to run alone, and while
    live rows enough for a full batch wait, one that has no time for that. (Else, in an overload, only
    short rows would be quick enough, and in batches of one.) Where that leaves nothing to run, one
    row whose deadline has not passed runs all the same, once a second: only runs teach the model, and
    one that was misled would never learn better. `replays` says whether replays may run now.
    """
    batch: Batch[T] = Batch([], [])
    many = queue.count(replays=False) >= rule.max_rows
    least_tokens = rule.max_tokens if many else 0

    def in_time(row: Row[T]) -> bool:
        tokens = max(least_tokens, row.length_tokens)
        return _slack_s(row, now_s=now_s) > _predict_s(latency, tokens)

    head = _pop_in_time(lambda: queue.pop_head(replays=replays), batch.late, in_time)
    if head is None:
        unlikely = None if queue.count(replays=replays) else _least_late(batch.late, now_s=now_s)
        if unlikely is not None and latency is not None and latency.doubt(now_s=now_s):
            batch.late.remove(unlikely)
            queue.charge(unlikely)
            return Batch([unlikely], batch.late, is_trial=True)
        return batch
    queue.charge(head)
    batch.rows.append(head)
    longest = head.length_tokens
    shortest = ceil(longest * LEAST_FILL)
    part = REPLAY_PART if head.lane is Lane.REPLAY else 1
    most_rows = min(rule.max_rows, rule.max_tokens // max(1, longest)) // part
    slack_s = _slack_s(head, now_s=now_s)
    while len(batch.rows) < most_rows:
        if _predict_s(latency, (len(batch.rows) + 1) * longest) > slack_s:
            break
        companion = _pop_in_time(
            lambda: queue.pop_company(head, min_length_tokens=shortest), batch.late, in_time
        )
        if companion is None:
            break
        queue.charge_company(companion, head=head)
        batch.rows.append(companion)
        slack_s = min(slack_s, _slack_s(companion, now_s=now_s))
    return batch


def padded_tokens(batch: Sequence[Row[T]]) -> int:
    """Return the tokens computed for `batch`: its rows times its longest row."""
    return len(batch) * max(row.length_tokens for row in batch)


def _pop_in_time(
    pop: Callable[[], Row[T] | None],
    late: list[Row[T]],
    in_time: Callable[[Row[T]], bool],
) -> Row[T] | None:
    """Pop rows until one is in time; add the others to `late`."""
    while len(late) < MAX_LATE_ROWS and (row := pop()) is not None:
        if in_time(row):
            return row
        late.append(row)
    return None


def _least_late(late: Sequence[Row[T]], *, now_s: float) -> Row[T] | None:
    """Return the row with the most time left, or None where all deadlines have passed."""
    latest = max(late, key=lambda row: _slack_s(row, now_s=now_s), default=None)
    return latest if latest is not None and _slack_s(latest, now_s=now_s) > 0 else None


def _slack_s(row: Row[T], *, now_s: float) -> float:
    return inf if row.deadline is None else row.deadline.remaining_s(now_s=now_s)


def _predict_s(latency: LatencyModel | None, padded_tokens: int) -> float:
    predicted_s = latency.predict_s(padded_tokens) if latency is not None else None
    return 0.0 if predicted_s is None else predicted_s
