"""One body for the memory in Redis and the one that tests use in its place."""

import secrets
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from cortex_stream.dedupe.fingerprint import Fingerprint, fingerprint
from cortex_stream.dedupe.redis_memory import RedisMemory
from cortex_stream.dedupe.window import Memory
from cortex_stream.devstack.stack import Stack
from cortex_stream.testing.dict_memory import DictMemory


class MemoryContract:
    @pytest.fixture
    def memory(self) -> Memory:
        raise NotImplementedError

    @pytest.fixture
    def system(self) -> str:
        """Return a name that nobody else asks under."""
        return secrets.token_hex(8)

    async def test_what_is_new_conflicts_with_nothing(self, memory: Memory, system: str) -> None:
        asked = [of(system, f"{number}", "payload") for number in range(512)]

        assert not await memory.conflicting(asked)

    async def test_the_first_payload_is_the_one_that_is_remembered(
        self, memory: Memory, system: str
    ) -> None:
        assert not await memory.conflicting([of(system, "1", "first")])

        assert set(await memory.conflicting([of(system, "1", "second")])) == {0}
        assert set(await memory.conflicting([of(system, "1", "second")])) == {0}
        assert not await memory.conflicting([of(system, "1", "first")])

    async def test_within_one_call_the_first_counts(self, memory: Memory, system: str) -> None:
        asked = [
            of(system, "1", "first"),
            of(system, "2", "alone"),
            of(system, "1", "second"),
            of(system, "1", "first"),
            of(system, "1", "third"),
        ]

        assert set(await memory.conflicting(asked)) == {2, 4}

    async def test_payloads_may_hold_any_bytes(self, memory: Memory, system: str) -> None:
        for number in range(256):
            key = of(system, f"any-{number}", "").key
            payload = bytes([number, 0, 13, 10]) * 4

            assert not await memory.conflicting([Fingerprint(key, payload)])
            assert not await memory.conflicting([Fingerprint(key, payload)])
            assert await memory.conflicting([Fingerprint(key, payload[::-1])])


def of(system: str, request_id: str, payload: str) -> Fingerprint:
    digest = payload.encode().ljust(32, b"\0")
    return fingerprint(
        system=system, source="//contract", request_id=request_id, payload_digest=digest
    )


class TestDictMemory(MemoryContract):
    @pytest.fixture
    def memory(self) -> Memory:
        return DictMemory()


@pytest.mark.integration
class TestRedisMemory(MemoryContract):
    @pytest.fixture
    async def memory(self, stack: Stack) -> AsyncIterator[Memory]:
        memory = RedisMemory(SecretStr(stack.redis_url), window_s=60)
        yield memory
        await memory.close()
