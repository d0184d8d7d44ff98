"""The batch that is formed while every runner is at work, so that one goes on without a pause.

Between two batches a runner waits for the event loop, which is one thread among many: some hundredths
of each core stood idle in a backlog. So while more rows wait than the runners can take, the next
batch is formed ahead, and the first runner that is done takes it on its own thread.

What is urgent does not wait for that batch: one that is formed for a newcomer goes before it, once.
While newcomers come, batches are brief, too, since the next newcomer waits for the end of one.

Nothing else is formed ahead while a row with a deadline waits: which of those are still in time is
only known when one of them may begin. A newcomer with one is judged when its batch is formed, by
what is predicted, and once more for having expired when that batch begins.

Invariant: nothing is added to two batches or more.
Owner: the event loop; `take` alone is called on the runners' threads.
"""

from collections import deque
from math import inf
from typing import Final, Generic, TypeVar

from cortex_stream.clock import Clock
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.scheduling.latency_model import LatencyModel
from cortex_stream.scheduling.waiting import Live, Waiting, WaitingRows, Weighed
from schemas.priority import Lane

_WAITING_BATCHES: Final = 4
"""Rows of so many full batches wait when one is formed ahead. With fewer, those that come until a
runner is free would be missed as company."""

_BRIEF_S: Final = 1.0
"""For so long after a newcomer batches are brief."""

_RANKS: Final = {lane: rank for rank, lane in enumerate(Lane)}

R = TypeVar("R", bound=Weighed)


class Ahead(Generic[R]):
    """At most one batch, and one that was formed later and goes before it."""

    def __init__(
        self, waiting: WaitingRows[R], rule: BatchRule, latency: LatencyModel, *, clock: Clock
    ) -> None:
        """Form batches of `rule` out of `waiting`, for runners of which `latency` knows the speed."""
        self._waiting = waiting
        self._rule = rule
        self._latency = latency
        self._clock = clock
        self._batches: deque[list[Waiting[R]]] = deque()
        self._overtaken: list[Waiting[R]] | None = None
        self._newcomer_s = -inf

    def take(self) -> list[Waiting[R]] | None:
        """Take the next batch; None where there is none, or where rows of it must not run."""
        if not (batch := self._pop()):
            return None
        now_s = self._clock.monotonic_s()
        if all(row.late_s(now_s=now_s) < 0 and not row.payload.settled for row in batch):
            return batch
        self._batches.appendleft(batch)  # the event loop sorts them out
        return None

    def hand_back(self) -> None:
        """Let what there is come back, to be the next by the rule of whoever runs it."""
        while batch := self._pop():
            self._waiting.come_back(batch)

    def look(self) -> None:
        """Form the next batch if many wait and there is none."""
        if self._batches:
            return
        self._overtaken = None
        queue = self._waiting.queue
        many = queue.count(replays=False) >= _WAITING_BATCHES * self._rule.max_rows
        if many and not queue.with_deadline:
            self._batches.extend(self._formed())

    def came(self, live: Live) -> None:
        """Let a newcomer go before the batch there is, unless another has or it is less urgent.

        Who comes where nobody waits is none.
        """
        nobody_waits = not self._batches and self._waiting.queue.count(replays=False) == live.rows
        if not live.newcomer or nobody_waits:
            return
        self._newcomer_s = self._clock.monotonic_s()
        batches = list(self._batches)  # a runner may take one meanwhile
        if len(batches) != 1 or batches[0] is self._overtaken:
            return
        if _RANKS[live.lane] <= min(_RANKS[row.lane] for row in batches[0]):
            self._overtaken = batches[0]
            self._batches.extendleft(self._formed())

    def rule_now(self, rule: BatchRule) -> BatchRule:
        """Return `rule`, or its brief form while newcomers come."""
        alone = self._clock.monotonic_s() - self._newcomer_s > _BRIEF_S
        return rule if alone else rule.brief()

    def _pop(self) -> list[Waiting[R]]:
        try:
            return self._batches.popleft()
        except IndexError:
            return []

    def _formed(self) -> list[list[Waiting[R]]]:
        """Form a batch; return it alone, or nothing."""
        rule = self.rule_now(self._rule)
        batch = self._waiting.next_batch(rule, self._latency, replays=False)
        return [batch] if batch else []
