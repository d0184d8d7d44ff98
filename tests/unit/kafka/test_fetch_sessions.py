"""When a fetch tells everything, and when only what has changed."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import (
    FetchRequest,
    FetchRequest_v4,
    FetchRequest_v11,
    FetchResponse_v4,
    FetchResponse_v11,
)
from aiokafka.structs import TopicPartition

from cortex_stream.kafka import fetch_sessions as module
from cortex_stream.kafka.fetch_sessions import FetchSessions

NODE = 1
SESSION = 4711
PLACES = {TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)}


class Broker:
    """Keeps what it was asked; answers with nothing new.

    Attributes:
        asked: session, epoch, offsets and what is to be forgotten, of each fetch.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, dict[TopicPartition, int], set[TopicPartition]]] = []
        self.session = SESSION
        self.error: Exception | None = None
        self.error_code = 0
        self.throttle_ms = 0

    async def send(self, node_id: int, request: FetchRequest) -> Any:
        assert node_id == NODE
        asked = request.build(FetchRequest_v11)
        offsets = {
            TopicPartition(topic, partition): offset
            for topic, partitions in asked.topics
            for partition, _, offset, _, _ in partitions
        }
        forgotten = {
            TopicPartition(topic, partition)
            for topic, partitions in asked.forgotten_topics_data
            for partition in partitions
        }
        self.asked.append((asked.session_id, asked.session_epoch, offsets, forgotten))
        if self.error is not None:
            raise self.error
        return FetchResponse_v11(self.throttle_ms, self.error_code, self.session, [])


class Desk:
    """A consumer to which all partitions are assigned, and its broker."""

    def __init__(self) -> None:
        self.states = {at: SimpleNamespace(timestamp=1) for at in PLACES}
        assignment = SimpleNamespace(tps=PLACES, state_value=self.states.get)
        self.broker = Broker()
        self.sessions = FetchSessions(
            self.broker.send,
            SimpleNamespace(subscription=SimpleNamespace(assignment=assignment)),
        )

    async def fetch(self, offsets: dict[TopicPartition, int]) -> None:
        await self.sessions.send(NODE, fetch_of(offsets))


def fetch_of(offsets: dict[TopicPartition, int]) -> FetchRequest:
    by_topic: dict[str, list[tuple[int, int, int]]] = {}
    for at, offset in offsets.items():
        by_topic.setdefault(at.topic, []).append((at.partition, offset, 1 << 20))
    return FetchRequest(100, 1, 1 << 25, 0, list(by_topic.items()))


ALL = dict.fromkeys(PLACES, 7)
FIRST = TopicPartition("t", 0)


async def test_the_first_fetch_tells_all_and_later_ones_what_has_changed() -> None:
    desk = Desk()

    await desk.fetch(ALL)
    await desk.fetch(ALL)
    await desk.fetch(ALL | {FIRST: 8})
    await desk.fetch({at: offset for at, offset in ALL.items() if at != FIRST})
    await desk.fetch(ALL | {FIRST: 8})

    assert desk.broker.asked == [
        (0, 0, ALL, set()),
        (SESSION, 1, {}, set()),
        (SESSION, 2, {FIRST: 8}, set()),
        (SESSION, 3, {}, {FIRST}),
        (SESSION, 4, {FIRST: 8}, set()),
    ]


async def test_after_a_fetch_without_an_answer_all_is_told_and_the_session_ended() -> None:
    desk = Desk()
    await desk.fetch(ALL)

    desk.broker.error = KafkaConnectionError("gone")
    with pytest.raises(KafkaConnectionError):
        await desk.fetch(ALL | {FIRST: 8})
    desk.broker.error = None
    await desk.fetch(ALL | {FIRST: 8})

    assert desk.broker.asked[1:] == [
        (SESSION, 1, {FIRST: 8}, set()),
        (SESSION, 0, ALL | {FIRST: 8}, set()),
    ]


async def test_all_is_told_while_an_answer_was_not_taken() -> None:
    desk = Desk()
    await desk.fetch(ALL)

    desk.states[FIRST].timestamp = None  # of an assignment that has come since
    await desk.fetch(ALL)
    desk.states[FIRST].timestamp = 1
    await desk.fetch(ALL)

    assert desk.broker.asked[1:] == [(SESSION, 0, ALL, set()), (SESSION, 1, {}, set())]


async def test_what_is_left_out_counts_as_answered() -> None:
    desk = Desk()

    await desk.fetch(ALL)

    assert all(state.timestamp > 1 for state in desk.states.values())


async def test_where_a_quota_was_exceeded_nothing_counts_as_answered() -> None:
    desk = Desk()
    desk.broker.throttle_ms = 100

    await desk.fetch(ALL)

    assert all(state.timestamp == 1 for state in desk.states.values())


async def test_a_session_that_the_broker_refuses_is_ended_by_the_next_one() -> None:
    desk = Desk()
    await desk.fetch(ALL)

    desk.broker.error_code = 71
    await desk.fetch(ALL)

    assert desk.broker.asked[1:] == [(SESSION, 1, {}, set()), (SESSION, 0, ALL, set())]


async def test_a_broker_without_a_place_for_a_session_is_told_all_each_time() -> None:
    desk = Desk()
    desk.broker.session = 0

    await desk.fetch(ALL)
    await desk.fetch(ALL)

    assert desk.broker.asked == [(0, 0, ALL, set())] * 2


async def test_epochs_begin_again_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_EPOCH", 2)
    desk = Desk()

    for _ in range(5):
        await desk.fetch(ALL)

    assert [epoch for _, epoch, _, _ in desk.broker.asked] == [0, 1, 2, 1, 2]


async def test_a_broker_from_before_sessions_is_asked_as_ever() -> None:
    built: list[Any] = []

    async def send(_node_id: int, request: FetchRequest) -> Any:
        built.append(request.build(FetchRequest_v4).to_object())
        return FetchResponse_v4(0, [])

    sessions = FetchSessions(send, SimpleNamespace(subscription=None))
    for _ in range(2):
        await sessions.send(NODE, fetch_of(ALL))

    assert built == [fetch_of(ALL).build(FetchRequest_v4).to_object()] * 2


async def test_other_requests_pass() -> None:
    passed: list[object] = []

    async def send(_node_id: int, request: object, **options: object) -> str:
        passed.append((request, options))
        return "answer"

    sessions = FetchSessions(send, SimpleNamespace(subscription=None))

    assert await sessions.send(NODE, "metadata", group=2) == "answer"
    assert passed == [("metadata", {"group": 2})]
