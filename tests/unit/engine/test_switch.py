"""What a model's name means, and how that changes while requests come in."""

from collections.abc import AsyncIterator

import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.engine.models import ServedModels
from cortex_stream.scheduling.batcher import BatchRule
from cortex_stream.testing.stub_runner import stub_model


@pytest.fixture
async def models() -> AsyncIterator[ServedModels]:
    async with ServedModels(
        [stub_model(version="1"), stub_model(name="other"), stub_model(version="2")],
        default="stub",
        rule=lambda _: BatchRule(max_rows=8, max_tokens=256),
        run_timeout_s=30,
        clock=ManualClock(),
        on_stuck=lambda _: None,
    ) as models:
        yield models


def references(models: ServedModels) -> list[str]:
    return [models.find(name).reference for name in (None, "stub", "stub@1", "stub@2", "other")]


async def test_a_switch_changes_what_the_name_alone_means_and_nothing_else(
    models: ServedModels,
) -> None:
    before = references(models)

    meant = models.switch("stub", "1")

    assert meant is models.find("stub@1")
    assert before == ["stub@2", "stub@2", "stub@1", "stub@2", "other@1"]
    assert references(models) == ["stub@1", "stub@1", "stub@1", "stub@2", "other@1"]


async def test_without_a_version_the_name_means_the_last_again(models: ServedModels) -> None:
    models.switch("stub", "1")

    meant = models.switch("stub", None)

    assert meant is models.find("stub@2") is models.find("stub")


async def test_a_version_that_is_not_served_leaves_the_name_as_it_was(models: ServedModels) -> None:
    models.switch("stub", "1")

    meant = models.switch("stub", "9")

    assert meant is models.find("stub@1") is models.find("stub")


async def test_of_a_name_that_is_not_served_nothing_is_known(models: ServedModels) -> None:
    before = references(models)

    assert models.switch("strange", "1") is None
    assert references(models) == before
