"""An id that is used again for another payload, as the engine sees it."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import pytest

from cortex_stream.routing.route import StageName
from schemas.handovers import HANDOVER
from schemas.outcomes import Outcome as OutcomeMessage
from schemas.outcomes import OutcomeKind
from schemas.priority import Lane
from schemas.requests import UNKNOWN_SOURCE
from tests.unit.engine.desk import message_of, open_engine, request, source
from topics.names import DEAD_LETTERS, VALIDATION


@dataclass
class Window:
    """A window that remembers for ever.

    Attributes:
        asked: the ids that were asked for, in order.
    """

    asked: list[str] = field(default_factory=list)
    _first: dict[tuple[str, str], bytes] = field(default_factory=dict)

    async def conflicts(self, *, source: str, request_id: str, payload_digest: bytes) -> bool:
        self.asked.append(request_id)
        return self._first.setdefault((source, request_id), payload_digest) != payload_digest


async def test_the_same_payload_again_has_the_same_outcome_id_and_another_is_a_conflict() -> None:
    async with open_engine(dedupe=Window()) as engine:
        first = await engine.process(request(["one"], source="//shop"), source())
        again = await engine.process(request(["one"], source="//shop"), source(offset=8))
        other = await engine.process(request(["two"], source="//shop"), source(offset=9))

    assert [first.kind, again.kind, other.kind] == [
        OutcomeKind.RESULT,
        OutcomeKind.RESULT,
        OutcomeKind.REJECTED,
    ]
    assert first.outcome_id == again.outcome_id != other.outcome_id
    assert error_of(message_of(other)) == ("conflict", "id")
    assert [record.topic for record in other.records].count(DEAD_LETTERS) == 1


async def test_the_message_says_what_to_change() -> None:
    async with open_engine(dedupe=Window()) as engine:
        texts = {}
        for origin in ("//shop", UNKNOWN_SOURCE):
            await engine.process(request(["one"], source=origin), source())
            other = await engine.process(request(["two"], source=origin), source())
            texts[origin] = str(other.error)

    assert "new id" in texts["//shop"]
    assert "'//shop'" in texts["//shop"]
    assert "a source of their own" in texts[UNKNOWN_SOURCE]


async def test_the_same_id_of_another_source_is_another_request() -> None:
    async with open_engine(dedupe=Window()) as engine:
        await engine.process(request(["one"], source="//shop"), source())
        other = await engine.process(request(["two"], source="//office"), source())

    assert other.kind is OutcomeKind.RESULT


async def test_another_spelling_of_the_same_payload_is_no_conflict() -> None:
    plain = (
        b'{"id":"1","type":"cortex.nlp.embed.v1","data":{"texts":["a"],"encoding_format":"float"}}'
    )
    spelt = b'{"data":{"encoding_format":"float", "texts":["\\u0061"]},"type":"cortex.nlp.embed.v1","id":"1"}'
    async with open_engine(dedupe=Window()) as engine:
        await engine.process(plain, source())
        again = await engine.process(spelt, source())

    assert again.kind is OutcomeKind.RESULT


@pytest.mark.parametrize(
    "value",
    [b"no json", b'{"id":"1","type":"cortex.nlp.embed.v1","data":{"texts":[]}}'],
    ids=["unreadable", "refused"],
)
async def test_what_never_becomes_a_request_is_not_remembered(value: bytes) -> None:
    window = Window()
    async with open_engine(dedupe=window) as engine:
        await engine.process(value, source())

    assert window.asked == []


async def test_what_was_handed_over_is_not_asked_again() -> None:
    window = Window()
    async with open_engine(stages=[StageName.INFERENCE], dedupe=window) as engine:
        handed = await engine.process(request(["one"], id="first"), source())
    [record] = handed.records
    arrived = replace(
        source(lane=Lane.MEDIUM, headers=record.headers), stage=StageName.EMBEDDING.value
    )
    assert record.headers[-1][0] == HANDOVER
    async with open_engine(dedupe=window) as engine:
        answered = await engine.process(record.value, arrived)

    assert handed.handed_to == StageName.EMBEDDING.value
    assert answered.kind is OutcomeKind.RESULT
    assert window.asked == ["first"]


async def test_a_request_that_is_set_back_is_asked_for_once_at_its_turn() -> None:
    window = Window()
    async with open_engine(dedupe=window, crowding=FirstCrowded()) as engine:  # type: ignore[arg-type] # all that is asked of it
        set_back = await engine.process(request(["one"], id="flood"), source())
        asked_before_its_turn = list(window.asked)
        [record] = set_back.records
        at_its_turn = replace(source(lane=Lane.MEDIUM, headers=record.headers), stage=VALIDATION)
        answered = await engine.process(record.value, at_its_turn)
        reused = await engine.process(request(["two"], id="flood"), source())

    assert set_back.handed_to == VALIDATION
    assert asked_before_its_turn == []
    assert answered.kind is OutcomeKind.RESULT
    assert error_of(message_of(reused)) == ("conflict", "id")
    assert window.asked == ["flood", "flood"]


class FirstCrowded:
    """Finds that the topic is crowded when it is asked for the first time."""

    def __init__(self) -> None:
        self._crowded = True

    def must_wait(self, _lane: Lane, _tenant: str, **_: object) -> bool:
        was, self._crowded = self._crowded, False
        return was

    def counted(
        self, _lane: Lane, _tenant: str, _weight_bytes: int
    ) -> AbstractContextManager[None]:
        return nullcontext()


def error_of(message: OutcomeMessage) -> tuple[str, str | None]:
    error = message.data.error
    assert error is not None
    return error.code, error.field
