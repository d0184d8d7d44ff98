from dataclasses import replace

import pytest

from cortex_stream.bootstrap.worker import batch_rule
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.settings.sections import BatchingSettings
from cortex_stream.settings.tree import Settings
from cortex_stream.testing.stub_runner import stub_model

STRICT = Settings(batching=BatchingSettings(invariance="strict"))
DEPENDENT = replace(stub_model(), batch_invariant=False)


def test_in_strict_mode_a_model_that_depends_on_its_company_runs_one_text_at_a_time() -> None:
    rule = batch_rule(STRICT, DEPENDENT)

    assert rule == BatchRule(max_rows=1, max_tokens=DEPENDENT.max_tokens)


@pytest.mark.parametrize(("settings", "model"), [(STRICT, stub_model()), (Settings(), DEPENDENT)])
def test_otherwise_batches_are_as_large_as_ever(settings: Settings, model: object) -> None:
    assert isinstance(model, type(DEPENDENT))

    rule = batch_rule(settings, model)

    assert rule == BatchRule(max_rows=8, max_tokens=256, brief_tokens=160)
