"""Real models for tests, downloaded once per machine. Loaded as a plugin by `tests/conftest.py`."""

from collections.abc import Callable

import pytest

from cortex_stream.environment import cache_folder, subprocess_environment
from cortex_stream.errors import ArtifactFailed
from cortex_stream.registry.pull import pull
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import ModelsSettings


@pytest.fixture(scope="session")
def model_settings() -> ModelsSettings:
    """Return settings whose folder of models outlives the test session."""
    return ModelsSettings(folder=cache_folder() / "test-models")


@pytest.fixture(scope="session")
def pulled_models(model_settings: ModelsSettings) -> Callable[[str], ModelVersion]:
    """Return what gets a known model, from the network once; verified at every use.

    Without a network the test is skipped at the desk, and fails in CI.
    """

    def pulled(name: str) -> ModelVersion:
        try:
            return pull(name, model_settings).version
        except ArtifactFailed as error:
            if subprocess_environment().get("CI") == "true":
                raise
            pytest.skip(str(error))

    return pulled
