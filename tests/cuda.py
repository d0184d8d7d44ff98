"""Models on a GPU, for the tests that are marked `gpu`."""

import pytest

from cortex_stream.errors import ModelLoadFailed
from cortex_stream.inference.model import LoadedModel, load_model
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import InferenceSettings


def load_on_cuda(version: ModelVersion) -> LoadedModel:
    """Load `version` on a GPU; skip the test where there is none."""
    try:
        return load_model(version, InferenceSettings(provider="cuda"))
    except ModelLoadFailed as error:
        pytest.skip(str(error))
