"""A memory of the dedupe window in a dictionary, which forgets nothing and fails on demand.

`DictMemory` passes the contract tests of `dedupe.window.Memory`.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence

from cortex_stream.dedupe.fingerprint import Fingerprint


class DictMemory:
    """Remembers for ever.

    Attributes:
        calls: how much was asked for in each call.
        released: clear it to hold every call at its start, set it to let them go.
    """

    def __init__(self, *, failures: Iterator[Exception | None] | None = None) -> None:
        """Make an empty memory; each call raises the next of `failures`, None lets it succeed."""
        self.calls: list[int] = []
        self.released = asyncio.Event()
        self.released.set()
        self._failures = failures or iter(())
        self._payloads: dict[bytes, bytes] = {}

    async def conflicting(self, asked: Sequence[Fingerprint]) -> Collection[int]:
        """Remember what is new; return the positions that are known with another payload."""
        self.calls.append(len(asked))
        await self.released.wait()
        failure = next(self._failures, None)
        if failure is not None:
            raise failure
        return {
            position
            for position, each in enumerate(asked)
            if self._payloads.setdefault(each.key, each.payload) != each.payload
        }
