"""A run of a real model ends early when it is told to, and leaves no trace."""

from collections.abc import Callable

import numpy as np
import pytest

from cortex_stream.errors import RunInterrupted
from cortex_stream.inference.model import load_model
from cortex_stream.registry.store import ModelVersion
from cortex_stream.settings.sections import InferenceSettings
from tests.interrupting import interrupting

pytestmark = pytest.mark.integration


def test_an_interrupted_run_ends_and_the_next_gives_the_same_numbers(
    pulled_models: Callable[[str], ModelVersion],
) -> None:
    model = load_model(pulled_models("minilm"), InferenceSettings(runners=1, provider="cpu"))
    runner = model.runners[0]
    rows = model.tokenizer.encode(["a long text " * 200] * 8)  # a third of a second on one core
    before = runner.run(rows)

    for _ in range(3):
        with pytest.raises(RunInterrupted), interrupting(runner):
            runner.run(rows)

    assert np.array_equal(runner.run(rows), before)
