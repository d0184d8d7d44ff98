"""What a coordinator says of commits, and what it says when it does not know them yet."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.commit import OffsetFetchResponse_v3

from cortex_stream.kafka.commits import commits_told, read_commits

TOLD = OffsetFetchResponse_v3(
    0,
    [
        ("lake", [(0, 7, "until=9", 0), (1, -1, "", 0)]),
        ("gone", [(0, -1, "", UnknownTopicOrPartitionError.errno)]),
    ],
    0,
)


def refusing(error: Any) -> Any:
    return OffsetFetchResponse_v3(0, [], error.errno)


@dataclass
class Coordinator:
    """Gives one answer after the other.

    Attributes:
        looked_for: how often it was asked which broker coordinates the group.
    """

    answers: Sequence[Any]
    group_id = "group"
    known = True
    looked_for: int = 0
    asked: list[Any] = field(default_factory=list)

    async def ensure_coordinator_known(self) -> None:
        self.looked_for += not self.known
        self.known = True

    def coordinator_dead(self) -> None:
        self.known = False

    async def _send_req(self, request: Any) -> Any:
        self.asked.append(request)
        return self.answers[len(self.asked) - 1]


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cortex_stream.kafka.commits._ASK_AGAIN_S", 0.0)


def test_places_without_a_commit_and_topics_that_are_gone_are_left_out() -> None:
    assert commits_told(TOLD) == {("lake", 0): (7, "until=9")}


def test_an_error_of_a_partition_is_one_of_the_answer() -> None:
    code = TopicAuthorizationFailedError.errno

    with pytest.raises(TopicAuthorizationFailedError):
        commits_told(OffsetFetchResponse_v3(0, [("lake", [(0, 7, "", 0), (1, -1, "", code)])], 0))


async def test_a_coordinator_that_still_loads_is_asked_again_and_one_that_is_none_is_left() -> None:
    answers = [refusing(GroupLoadInProgressError), refusing(NotCoordinatorForGroupError), TOLD]
    coordinator = Coordinator(answers)

    commits = await read_commits(SimpleNamespace(_coordinator=coordinator), [("lake", 0)])

    assert commits == {("lake", 0): (7, "until=9")}
    assert len(coordinator.asked) == 3
    assert coordinator.looked_for == 1


async def test_a_group_that_is_not_ours_to_read_is_an_error() -> None:
    coordinator = Coordinator([refusing(GroupAuthorizationFailedError)])

    with pytest.raises(GroupAuthorizationFailedError):
        await read_commits(SimpleNamespace(_coordinator=coordinator), [("lake", 0)])


async def test_nothing_is_asked_of_no_places() -> None:
    coordinator = Coordinator([])

    assert await read_commits(SimpleNamespace(_coordinator=coordinator), []) == {}
