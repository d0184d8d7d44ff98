"""Where logs begin, or nothing: whoever asks goes on without."""

import asyncio
from collections.abc import Sequence

import pytest
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import TopicPartition

from cortex_stream.kafka import log_starts as module
from cortex_stream.kafka.log_starts import read_log_starts

PLACES = [("t", 0), ("t", 1)]


class Consumer:
    def __init__(
        self, *, failure: Exception | None = None, answer_s: float = 0.0, silent: int | None = None
    ) -> None:
        self._failure = failure
        self._answer_s = answer_s
        self._silent = silent  # a partition

    async def beginning_offsets(self, at: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if self._silent in {each.partition for each in at}:
            await asyncio.Event().wait()
        await asyncio.sleep(self._answer_s)
        if self._failure is not None:
            raise self._failure
        return {each: 10 + each.partition for each in at}


async def test_each_place_has_its_start() -> None:
    assert await read_log_starts(Consumer(), PLACES) == {("t", 0): 10, ("t", 1): 11}


async def test_a_failure_gives_none() -> None:
    assert await read_log_starts(Consumer(failure=KafkaTimeoutError()), PLACES) == {}


async def test_a_late_answer_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.01)

    assert await read_log_starts(Consumer(answer_s=60), PLACES) == {}


async def test_a_partition_that_cannot_answer_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.05)

    assert await read_log_starts(Consumer(silent=0), PLACES) == {("t", 1): 11}
