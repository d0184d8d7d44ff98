"""One request's life: bytes in, the one outcome out."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from cortex_stream.clock import Clock
from cortex_stream.delivery.outcome import Answering, Outcome
from cortex_stream.delivery.retry import (
    Fate,
    GiveUp,
    Leave,
    RetryBudget,
    RetryLater,
    Tries,
    TryAgain,
    decide_end,
    decide_fate,
)
from cortex_stream.engine.endings import Asker, Endings, forget_stack
from cortex_stream.engine.events import decide_effects, event_type_label
from cortex_stream.engine.handover import due_in_s, hand_over, retry_later, set_back
from cortex_stream.engine.limits import Gates, in_time
from cortex_stream.engine.models import ServedModel, ServedModels
from cortex_stream.engine.parse import Envelope, decode
from cortex_stream.engine.reading import Opened, Reader, Try, check_in_time, unforeseen
from cortex_stream.engine.reuse import DedupeWindow, find_reuse
from cortex_stream.engine.stage import Stage
from cortex_stream.engine.validate import payload_digest
from cortex_stream.errors import (
    CortexError,
    Expired,
    InvalidHandover,
    OutcomeTooLarge,
    PoisonousRecord,
    RetryBudgetSpent,
    UnreadableRecord,
)
from cortex_stream.record import RecordSource
from cortex_stream.routing.hosting import Handoff, next_hop
from cortex_stream.routing.pipeline import BUILT_IN, Pipeline
from cortex_stream.routing.request import WorkItem, tenant_of
from cortex_stream.routing.route import StageName
from cortex_stream.scheduling.crowding import Crowding
from cortex_stream.scheduling.fair_gate import FairGate
from cortex_stream.settings.sections import LimitsSettings, RetriesSettings
from cortex_stream.telemetry import metrics
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from schemas.requests import RequestAttributes
from topics.names import VALIDATION

INLINE_BYTES: Final = 32 << 10
"""Larger requests are read aside: 1 MiB can take 200 ms, and nothing may hold the event loop for
50 ms. Up to here it is 6 ms at most, where handing over would cost more than the usual 0.02 ms."""
INLINE_HEADERS: Final = 1_000
"""Those with more headers, too: a third of a million fit into 1 MiB and take 150 ms."""


class Engine:
    """Answers requests and events. Knows nothing of Kafka clients.

    Owner: the event loop. `process` may run for any number of records at once; they meet only in
    the models' queues, and where their pipeline is limited.

    Attributes:
        retry_budget: what pays for further attempts.
    """

    def __init__(
        self,
        *,
        models: ServedModels,
        stages: Mapping[StageName, Stage],
        endings: Endings,
        limits: LimitsSettings,
        max_attempts: int,
        clock: Clock,
        instance: str,
        pipelines: Sequence[Pipeline] = BUILT_IN,
        most_request_bytes: int = sys.maxsize,
        crowding: Crowding | None = None,
        retries: RetriesSettings | None = None,
        dedupe: DedupeWindow | None = None,
    ) -> None:
        """Answer requests through `pipelines`; hand over before a stage not among `stages`.

        By default no topic is ever crowded, and ids may be used again for other payloads.
        """
        self._models = models
        self._stages = stages
        self._endings = endings
        self._limits = limits
        self._max_attempts = max_attempts
        self._clock = clock
        self._instance = instance
        self._reader = Reader(
            models=models,
            endings=endings,
            limits=limits,
            clock=clock,
            pipelines=pipelines,
            most_request_bytes=most_request_bytes,
        )
        self._gates = Gates(pipelines)
        self._crowding = crowding or Crowding(lambda _: False, clock=clock)
        self._retries = retries or RetriesSettings()
        self._dedupe = dedupe
        self.retry_budget = RetryBudget(share=self._retries.share, now_s=clock.monotonic_s())
        self._hosted = tuple(stages)
        self._aside = FairGate(1)  # one at a time: threads that compute slow the loop down

    def due_in_s(self, source: RecordSource) -> float:
        """Return how long to keep the record of a retry topic before `begin`; 0 or less: not."""
        return due_in_s(source, now_unix_ms=self._clock.unix_ms())

    async def process(self, value: bytes | None, source: RecordSource) -> Outcome:
        """Answer one request, or hand it over; see `begin`."""
        begun = self.begin(value, source)
        return begun if isinstance(begun, Outcome) else await begun()

    def begin(self, value: bytes | None, source: RecordSource) -> Outcome | Answering:
        """Return how the request ends if that is known at once, else what answers it.

        It may end in a hand-over: before a stage that is not hosted here; or, to be read again
        later, after a failure that may heal, or at once where a crowded topic has no room for it:
        before its data is looked at, unless it is large or has a deadline.
        The caller may acknowledge it once `Outcome.records` are durable.

        Raises, and so does what answers it:
            CortexError: with disposition FATAL only: nothing can be said about the request here,
                so it must not be acknowledged.
        """
        if len(value or b"") > INLINE_BYTES or len(source.headers) > INLINE_HEADERS:
            return partial(self._begin_aside, value, source)
        opened = self._reader.open(value, source)
        if isinstance(opened, Outcome):
            return opened
        if opened.deadline is None and self._must_wait(source, opened.lane, opened.attributes):
            return self._set_back(opened)
        return self._go_on(self._reader.read(opened), value, source)

    def process_event(self, value: bytes | None, source: RecordSource) -> Outcome:
        """Return the effect of one event; a refused one ends as `rejected`, like a request."""
        envelope: Envelope | None = None
        try:
            envelope = decode(value, source, limits=self._limits)
            event_type, records = decide_effects(
                envelope, now_unix_ms=self._clock.unix_ms(), instance=self._instance
            )
        except Exception as raised:  # noqa: BLE001 (one record's bad luck must not be everybody's)
            return self._reader.refuse(raised, value, source, envelope)
        return Outcome(None, None, None, event_type_label(event_type), records)

    def unreadable(self, source: RecordSource, reason: str) -> Outcome:
        """Return the outcome of a record whose value the Kafka client could not even hand over."""
        error = UnreadableRecord(f"the record cannot be decoded: {reason}")
        return self._reader.refuse(error, None, source, None)

    def poisonous(
        self, value: bytes | None, source: RecordSource, *, deliveries: int, readable: bool
    ) -> Outcome:
        """Return the dead letter of a record that ended its worker each time it ran.

        Only if `readable` is it looked at: reading it may be what ends workers.
        """
        error = PoisonousRecord(
            f"its last {deliveries} deliveries each ended the worker, twice while nothing else ran"
        )
        return self._reader.give_up(error, value, source, deliveries=deliveries, readable=readable)

    def too_large(
        self, outcome: Outcome, value: bytes | None, source: RecordSource, error: OutcomeTooLarge
    ) -> Outcome:
        """Return what to publish instead of an outcome that the broker found too large."""
        if source.stage is not None:
            with suppress(InvalidHandover):  # then the hand-over itself is all that can be named
                source = self._reader.arrival(source).origin
        return self._endings.replacement(outcome, error, value, source)

    async def _begin_aside(self, value: bytes | None, source: RecordSource) -> Outcome:
        # Whose it is nobody knows before it is read.
        lane, cost = source.lane or Lane.MEDIUM, len(value or b"")
        async with self._aside.entered(lane=lane, tenant="", cost=cost):
            read = await asyncio.to_thread(self._reader.open_and_read, value, source)
        begun = self._go_on(read, value, source)
        return begun if isinstance(begun, Outcome) else await begun()

    def _must_wait(self, source: RecordSource, lane: Lane, attributes: RequestAttributes) -> bool:
        """Tell whether a crowded topic has no room for a client's request."""
        return source.stage is None and self._crowding.must_wait(
            lane, tenant_of(attributes), topic=source.topic, topic_lane=source.lane
        )

    def _set_back(self, opened: Opened) -> Outcome:
        attributes = opened.attributes
        return set_back(
            attributes,
            payload_digest(attributes.type, opened.envelope.data),
            opened.value,
            opened.source,
            lane=opened.lane,
            deadline=opened.deadline,
            now_s=self._clock.monotonic_s(),
        )

    def _go_on(
        self, read: tuple[WorkItem, Try] | Outcome, value: bytes | None, source: RecordSource
    ) -> Outcome | Answering:
        """Answer what was read, unless it has ended or its tenant must wait."""
        if isinstance(read, Outcome):
            return read
        item, begin = read
        try:
            self._check_time(item, begin)
        except Expired as late:
            _count(item, begin, source)
            ended = self._give_up(OutcomeKind.EXPIRED, late, item, value, begin)
            return replace(ended, deadline=item.deadline)  # which may still be to come
        if self._must_wait(source, item.lane, item.request.attributes):
            return self._hand_over(item, value, VALIDATION, begin)
        _count(item, begin, source)
        return partial(self._answer_once, item, value, begin, source)

    def _check_time(self, item: WorkItem, begin: Try) -> None:
        """Refuse what would still wait for a runner of ours when its deadline passes.

        Raises:
            Expired: it would.
        """
        model = self._models.find(item.route.model)
        if item.deadline is None or begin.progress.vectors is not None:
            return
        if isinstance(model, ServedModel):
            model.check_time(lane=item.lane, tenant=item.request.tenant, deadline=item.deadline)

    async def _answer_once(
        self, item: WorkItem, value: bytes | None, begin: Try, source: RecordSource
    ) -> Outcome:
        """Answer, unless another request has had the same id."""
        with self._crowding.counted(item.lane, item.request.tenant, item.weight_bytes):
            if self._dedupe is not None and _is_unjudged(item, source):
                reused = await find_reuse(self._dedupe, item.request)
                if reused is not None:
                    return self._endings.failure(
                        OutcomeKind.REJECTED,
                        reused,
                        Asker.of(item),
                        value,
                        item.source,
                        stage=VALIDATION,
                    )
            if begin.tries.attempt == 1:
                self.retry_budget.earn()
            return await self._answer(item, value, begin)

    async def _answer(self, item: WorkItem, value: bytes | None, begin: Try) -> Outcome:
        """Run the stages until they succeed, end here, or the request's fate is decided."""
        now = begin
        found_before = begin.progress
        gate = self._gates.of_or_none(item.pipeline, item.lane)
        while True:
            try:
                if gate is None:
                    elsewhere = await self._run_stages(item, now)
                else:
                    async with gate.entered(
                        lane=item.lane, tenant=item.request.tenant, deadline=item.deadline
                    ):
                        elsewhere = await self._run_stages(item, now)
                if elsewhere is not None:
                    return self._hand_over(item, value, elsewhere.value, now)
                return self._endings.result(item, now.progress, attempt=now.tries.attempt)
            except Exception as raised:  # one request's bad luck must not be everybody's
                error = raised if isinstance(raised, CortexError) else unforeseen(raised, now.stage)
                now.tries = now.tries.failed(now_unix_ms=self._clock.unix_ms())
                error, fate = self._decide_fate(error, item, now.tries)
                match fate:
                    case TryAgain(delay_s):
                        metrics.RETRIES.labels("0", error.code).inc()
                        await asyncio.sleep(delay_s)
                        now = Try(now.tries.next(), found_before, VALIDATION)
                    case RetryLater():
                        return self._retry_later(error, item, value, now.tries, fate)
                    case GiveUp(kind):
                        return self._give_up(kind, error, item, value, now)
                    case Leave():
                        raise

    async def _run_stages(self, item: WorkItem, now: Try) -> StageName | None:
        """Run the stages that are hosted here; return the first that is not, or None at the end."""
        for position in range(item.position, len(item.route.stages)):
            hop = next_hop(item.route, position, self._hosted)
            name = hop.stage
            now.stage = name.value
            began_s = self._clock.monotonic_s()
            check_in_time(item.deadline, now_s=began_s, doing=f"starting stage {name.value}")
            if isinstance(hop, Handoff):
                return name
            running = self._stages[name].run(item, now.progress)
            now.progress = await in_time(running, item.pipeline, name)
            spent_s = self._clock.monotonic_s() - began_s
            metrics.labelled(metrics.STAGE_SECONDS, name.value).observe(spent_s)
        return None

    def _decide_fate(
        self, error: CortexError, item: WorkItem, tries: Tries
    ) -> tuple[CortexError, Fate]:
        """Return what follows on `error`, and the error to tell: another where retries are used up."""
        now_s = self._clock.monotonic_s()
        fate = decide_fate(
            error,
            tries,
            max_attempts=self._max_attempts,
            settings=self._retries,
            deadline=item.deadline,
            now_s=now_s,
            now_unix_ms=self._clock.unix_ms(),
        )
        if isinstance(fate, TryAgain | RetryLater) and not self.retry_budget.try_spend(now_s=now_s):
            spent = RetryBudgetSpent(
                f"{error.code}: {error}; not tried again, since so many requests fail that retries"
                f" would be more than {self._retries.share:.0%} of them (CORTEX_RETRIES__SHARE)"
            )
            return spent, decide_end(spent)
        return error, fate

    def _hand_over(self, item: WorkItem, value: bytes | None, stage: str, now: Try) -> Outcome:
        return hand_over(
            item,
            value,
            stage=stage,
            progress=now.progress,
            attempt=now.tries.attempt,
            now_s=self._clock.monotonic_s(),
        )

    def _retry_later(
        self,
        error: CortexError,
        item: WorkItem,
        value: bytes | None,
        tries: Tries,
        later: RetryLater,
    ) -> Outcome:
        forget_stack(error)
        return retry_later(
            item,
            value,
            later,
            error,
            tries,
            now_s=self._clock.monotonic_s(),
            now_unix_ms=self._clock.unix_ms(),
        )

    def _give_up(
        self,
        kind: OutcomeKind,
        error: CortexError,
        item: WorkItem,
        value: bytes | None,
        now: Try,
    ) -> Outcome:
        return self._endings.failure(
            kind,
            error,
            Asker.of(item),
            value,
            item.source,
            stage=now.stage,
            tries=now.tries,
            model=self._models.find(item.route.model).identity,
            timings_ms=now.progress.timings_ms,
        )


def _count(item: WorkItem, begin: Try, source: RecordSource) -> None:
    """Count a request, unless it was handed on or is tried again; one set back at its turn."""
    if source.stage in (None, VALIDATION) and begin.tries.attempt == 1:
        request_type = item.request.attributes.type
        metrics.labelled(metrics.REQUESTS, item.lane.value, request_type).inc()


def _is_unjudged(item: WorkItem, source: RecordSource) -> bool:
    """Tell whether nobody has asked yet if the id was used before: new ones, and those set back."""
    if source.stage is None:
        return True
    return source.stage == VALIDATION and item.reinjection is None and item.waited is None
