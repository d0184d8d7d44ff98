"""A dispatcher at work, for the tests of the scheduler."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import numpy as np

from cortex_stream.clock import Clock, SystemClock
from cortex_stream.errors import CortexError
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.scheduling.dispatcher import Dispatcher
from cortex_stream.scheduling.health import HealthRule
from cortex_stream.scheduling.runner_thread import Crew
from cortex_stream.scheduling.spare_time import SpareTime
from cortex_stream.scheduling.waiting import Answers
from cortex_stream.testing.stub_runner import StubRunner


class PickyRunner(StubRunner):
    """A stub runner that remembers its rows, and breaks on those that it was told to."""

    def __init__(self, *, broken: dict[int, Exception] | None = None) -> None:
        super().__init__(width=4)
        self.entered = threading.Event()
        self.ran: list[list[int]] = []
        self.on_run: Callable[[], None] = lambda: None
        self._broken = broken or {}

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        """Break if one of `rows` is broken, else answer."""
        self.entered.set()
        names = [name_of(row) for row in rows]
        self.ran.append(names)
        self.released.wait()
        self.on_run()
        for name in names:
            if name in self._broken:
                raise self._broken[name]
        return super().run(rows)

    @property
    def seen(self) -> list[int]:
        """Every row that was run, each time it was."""
        return [name for batch in self.ran for name in batch]


def text(name: int, tokens: int = 10) -> TokenRow:
    return TokenRow(np.full(tokens, name, np.int64))


def name_of(row: TokenRow) -> int:
    return int(row.ids[0])


def texts(names: range) -> list[TokenRow]:
    return [text(name) for name in names]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def caught(answers: Awaitable[Answers]) -> Answers | Exception:
    try:
        return await answers
    except Exception as error:  # noqa: BLE001 (the test looks at it)
        return error


class Desk:
    """A dispatcher in its scope, and who was told of stuck runs."""

    def __init__(self, scope: AsyncExitStack) -> None:
        self.stuck: list[CortexError] = []
        self._scope = scope

    async def open(
        self,
        *runners: StubRunner,
        clock: Clock | None = None,
        run_timeout_s: float = 30.0,
        max_rows: int = 8,
        brief_tokens: int | None = None,
        standby: tuple[StubRunner, ...] = (),
        standby_rows: int = 2,
        health: HealthRule | None = None,
        spare: SpareTime | None = None,
    ) -> Dispatcher[TokenRow]:
        for runner in (*runners, *standby):
            self._scope.callback(runner.close)  # lets its thread end with the test
        return await self._scope.enter_async_context(
            Dispatcher(
                Crew(runners, BatchRule(max_rows, 256, brief_tokens)),
                standby=Crew(standby, BatchRule(max_rows=standby_rows, max_tokens=256))
                if standby
                else None,
                health=health,
                spare=spare,
                model="stub@1",
                run_timeout_s=run_timeout_s,
                clock=clock or SystemClock(),
                on_stuck=self.stuck.append,
            )
        )
