"""The dedupe window: which requests reuse an id for another payload, asked of a memory in batches.

Invariants:
    Nobody waits longer than `TIMEOUT_S`, whatever the memory does; without its word a request goes
    unchecked. Correctness does not depend on it.
    One question's answer never reaches another: answers belong to positions in one call, and one
    call runs at a time.

Owner: the event loop. The memory, and so its connection, belongs to the task of `run` alone: a
request that is cancelled leaves the call that asks for it untouched.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cortex_stream.circuit import Circuit
from cortex_stream.dedupe.fingerprint import Fingerprint, fingerprint
from cortex_stream.telemetry import metrics

TIMEOUT_S: Final = 0.25
_MOST_AT_ONCE: Final = 512  # 20 KB a call, and about 1 ms of a Redis that others use, too


class Memory(Protocol):
    """Keeps the first payload of each key for a while."""

    async def conflicting(self, asked: Sequence[Fingerprint]) -> Collection[int]:
        """Remember what is new; return the positions whose key is known with another payload.

        Where one key is asked for twice, the first one counts. Any exception means that nothing is
        known. May be cancelled; the next call finds a memory in order.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Question:
    fingerprint: Fingerprint
    asked_s: float
    answer: asyncio.Future[bool]


class DedupeWindow:
    """Tells conflicts. Does nothing before `run` runs and after it has ended."""

    def __init__(self, memory: Memory, circuit: Circuit, *, system: str) -> None:
        """Ask `memory` while `circuit` lets through; `system` is the prefix of the topics."""
        self._memory = memory
        self._circuit = circuit
        self._system = system
        self._questions: list[_Question] = []
        self._asked = asyncio.Event()
        self._running = False

    async def conflicts(self, *, source: str, request_id: str, payload_digest: bytes) -> bool:
        """Return whether this id of `source` is remembered with another payload."""
        if self._circuit.open or not self._running:
            metrics.DEDUPE_CHECKS.labels("unchecked").inc()
            return False
        loop = asyncio.get_running_loop()
        question = _Question(
            fingerprint(
                system=self._system,
                source=source,
                request_id=request_id,
                payload_digest=payload_digest,
            ),
            loop.time(),
            loop.create_future(),
        )
        self._questions.append(question)
        self._asked.set()
        return await question.answer

    async def run(self) -> None:
        """Answer questions, all that wait in one call, until cancelled."""
        self._running = True
        try:
            while True:
                await self._asked.wait()
                batch = self._questions[:_MOST_AT_ONCE]
                del self._questions[:_MOST_AT_ONCE]
                if not self._questions:
                    self._asked.clear()
                await self._ask(batch)
        finally:
            self._running = False
            self._pass_unchecked(self._questions)

    async def _ask(self, batch: Sequence[_Question]) -> None:
        found: Collection[int] | None = None
        try:
            with self._circuit:
                found = await self._call(batch)
        except Exception:  # noqa: BLE001, S110 (whatever it is; the circuit counts and logs it)
            pass
        finally:
            if found is None:
                # Who has waited meanwhile would only wait for the next failure.
                self._pass_unchecked([*batch, *self._questions])
                self._questions.clear()
                self._asked.clear()  # or `run` would ask for nobody, and that would fail, too
        if found is None:
            return
        metrics.DEDUPE_CHECKS.labels("conflict").inc(len(found))
        metrics.DEDUPE_CHECKS.labels("passed").inc(len(batch) - len(found))
        for position, question in enumerate(batch):
            if not question.answer.done():  # else its request was cancelled
                question.answer.set_result(position in found)

    async def _call(self, batch: Sequence[_Question]) -> Collection[int]:
        try:
            async with asyncio.timeout_at(batch[0].asked_s + TIMEOUT_S):
                return await self._memory.conflicting([each.fingerprint for each in batch])
        except TimeoutError as error:
            raise TimeoutError(f"no answer within {TIMEOUT_S:g} s") from error

    def _pass_unchecked(self, questions: Sequence[_Question]) -> None:
        metrics.DEDUPE_CHECKS.labels("unchecked").inc(len(questions))
        for question in questions:
            if not question.answer.done():
                question.answer.set_result(False)
