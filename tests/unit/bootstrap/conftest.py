from collections.abc import Callable
from pathlib import Path

import pytest

from cortex_stream.bootstrap import worker as module
from cortex_stream.bootstrap.cut_overs import CutOvers
from cortex_stream.bootstrap.worker import Worker
from cortex_stream.clock import ManualClock
from cortex_stream.settings.sections import InferenceSettings, ModelsSettings
from cortex_stream.settings.tree import Settings
from tests.tiny_onnx import install_tiny


@pytest.fixture(autouse=True)
def nothing_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names mean what they mean without a cluster: tests/integration/replay decides about them."""

    async def nothing(_: CutOvers) -> None:
        return

    monkeypatch.setattr(CutOvers, "read", nothing)
    monkeypatch.setattr(CutOvers, "run", nothing)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(unix_ms=1_700_000_000_000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a worker that serves one tiny model."""
    version = install_tiny(tmp_path)
    return Settings(
        models=ModelsSettings(folder=tmp_path, serve=(version.name,), embed_default=version.name),
        inference=InferenceSettings(runners=1, provider="cpu"),
    )


@pytest.fixture
def build(
    clock: ManualClock, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Worker]:
    """Build workers whose cluster is not asked for its topics: the integration tests do that."""

    async def no_cluster(_: Settings) -> None:
        return

    monkeypatch.setattr(module, "verify_topics", no_cluster)
    return lambda: Worker(settings, clock=clock, instance="worker-0")
