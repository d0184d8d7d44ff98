"""Stacks that these tests may break."""

from collections.abc import Iterator

import pytest

from cortex_stream.devstack.stack import Stack
from tests.integration.devstack.keepsake import Heard, Keepsake, processes_in


@pytest.fixture
def heard() -> Heard:
    """Return what a stack may talk to."""
    return Heard()


@pytest.fixture(scope="module")
def own_stack(
    stack_programs: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """Return a stack that is up at first, and that tests may stop and kill."""
    stack = Stack(tmp_path_factory.mktemp("stacks") / "own")
    try:
        stack.up()
        yield stack
    finally:
        stack.wipe()
    assert processes_in(stack.folder) == []


@pytest.fixture
def keepsake(own_stack: Stack, topic_prefix: str) -> Keepsake:
    """Return a word that no other test has."""
    return Keepsake(own_stack, topic_prefix)
