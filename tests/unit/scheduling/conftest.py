import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from cortex_stream.task_scope import TaskScope
from tests.unit.scheduling.desk import Desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with AsyncExitStack() as scope, asyncio.timeout(20):
        yield Desk(scope)


@pytest.fixture
async def tasks() -> AsyncIterator[TaskScope]:
    async with TaskScope() as scope:
        yield scope
