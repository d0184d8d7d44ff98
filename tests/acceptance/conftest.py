"""One running system per module of acceptance tests, and a fresh one where a test breaks it."""

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from cortex_stream.devstack.stack import Stack
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import ModelsSettings
from tests.acceptance.system import System


@pytest.fixture(scope="session")
def models(model_settings: ModelsSettings, pulled_models: Callable[[str], ModelVersion]) -> Path:
    """A folder of models with minilm in it."""
    pulled_models("minilm")
    return model_settings.folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    stack: Stack, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """A system with one worker, shared by the tests of a module."""
    system = System(
        stack.environment(),
        prefix=f"test-{secrets.token_hex(5)}",
        models=models,
        folder=tmp_path_factory.mktemp("workers"),
    )
    async with system:
        await system.worker()
        yield system


@pytest_asyncio.fixture(loop_scope="module")
async def system(
    stack: Stack, models: Path, tmp_path: Path, topic_prefix: str
) -> AsyncIterator[System]:
    """A system of this test alone, without workers yet."""
    async with System(
        stack.environment(), prefix=topic_prefix, models=models, folder=tmp_path
    ) as system:
        yield system
