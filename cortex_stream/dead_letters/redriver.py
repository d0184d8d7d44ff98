"""Sends redrives, each after its record in the audit.

Invariants:
    No redrive is sent before the audit has it durably.
    After an interruption at any point the audit shows as cut whatever may not have been sent.

Owner: the event loop that calls.
"""

import asyncio
from collections.abc import Sequence
from math import ceil
from typing import Final

from cortex_stream.clock import Clock
from cortex_stream.dead_letters.redrive import Redrive, audit_record
from cortex_stream.kafka.producer import KafkaProducer

_BATCH_LETTERS: Final = 100
_BATCH_BYTES: Final = 8 << 20


class Redriver:
    """Collects redrives and sends them in batches of a second's worth, a hundred, or 8 MiB."""

    def __init__(
        self, producer: KafkaProducer, *, principal: str, clock: Clock, rate_per_s: float
    ) -> None:
        """Send at most `rate_per_s` letters a second, in the name of `principal`."""
        self._producer = producer
        self._principal = principal
        self._clock = clock
        self._rate_per_s = rate_per_s
        self._most_letters = min(_BATCH_LETTERS, ceil(rate_per_s))
        self._batch: list[Redrive] = []
        self._batch_bytes = 0
        self._not_before_s = clock.monotonic_s()

    async def add(self, redrive: Redrive) -> Sequence[Redrive]:
        """Take one; return those that are durable now, which may be none.

        Raises:
            BrokerUnavailable: what was taken may or may not be sent; the audit shows it as cut.
        """
        self._batch.append(redrive)
        self._batch_bytes += redrive.letter.size_bytes
        if len(self._batch) < self._most_letters and self._batch_bytes < _BATCH_BYTES:
            return ()
        return await self.flush()

    async def flush(self) -> Sequence[Redrive]:
        """Send what was taken; return it once it is durable.

        Raises:
            BrokerUnavailable: as in `add`.
        """
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if not batch:
            return ()
        await asyncio.sleep(max(0.0, self._not_before_s - self._clock.monotonic_s()))
        await self._audit(batch, done=False)
        await self._producer.send(*(redrive.record for redrive in batch))
        await self._audit(batch, done=True)
        self._not_before_s = self._clock.monotonic_s() + len(batch) / self._rate_per_s
        return batch

    async def _audit(self, batch: Sequence[Redrive], *, done: bool) -> None:
        now_unix_ms = self._clock.unix_ms()
        records = (
            audit_record(each, done=done, principal=self._principal, now_unix_ms=now_unix_ms)
            for each in batch
        )
        await self._producer.send(*records)
