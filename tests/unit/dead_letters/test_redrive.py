from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.dead_letters.letter import OURS, Letter, Place
from cortex_stream.dead_letters.redrive import (
    MOST_RECORD_BYTES,
    MOST_REDRIVES,
    Reason,
    Redrive,
    Refusal,
    Turns,
    audit_record,
    decide_redrive,
    letter_id,
    remember,
)
from cortex_stream.engine.handover import Arrival, read_arrival
from cortex_stream.record import OutgoingRecord, RecordSource
from schemas import dead_letters as names
from schemas.audit import AuditRecord
from schemas.handovers import HANDOVER, VECTORS, Handover, Reinjection, Waiting
from schemas.priority import Lane
from tests.unit.dead_letters.letters import VALUE, letter

NEVER = Turns()


def redrive(found: Letter, turns: Turns = NEVER, **how: bool) -> Redrive:
    decision = decide_redrive(found, turns, prefix="", **how)
    assert isinstance(decision, Redrive), decision
    return decision


def refusal(found: Letter, turns: Turns = NEVER, *, prefix: str = "", **how: bool) -> Refusal:
    decision = decide_redrive(found, turns, prefix=prefix, **how)
    assert isinstance(decision, Refusal), decision
    return decision


def arrival(record: OutgoingRecord, lane: Lane = Lane.HIGH) -> Arrival:
    """Return what the engine makes of a redrive."""
    source = RecordSource(
        record.topic, 0, 1, 5000, 9.0, lane, record.key, record.headers, stage="validation"
    )
    return read_arrival(source, now_s=10.0, now_unix_ms=5000)


header_names = st.text().filter(lambda name: name not in OURS)


@given(
    value=st.binary(min_size=1),
    key=st.none() | st.binary(),
    headers=st.lists(
        st.tuples(
            header_names | st.sampled_from([HANDOVER, VECTORS, "ce_id"]), st.none() | st.binary()
        )
    ),
)
def test_the_original_arrives_byte_for_byte(
    value: bytes, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    record = redrive(letter(value, key=key, headers=headers)).record

    assert (record.key, record.value) == (key, value)
    assert list(arrival(record).origin.headers) == headers


def test_it_begins_anew_on_its_lane_with_the_coordinates_of_the_first_record() -> None:
    sent = redrive(letter(VALUE.replace(b'"data"', b'"deadlinems":250,"data"')))

    assert sent.record.topic == "cortex.stages.validation.high"
    found = arrival(sent.record)
    origin = found.origin
    assert (origin.topic, origin.partition, origin.offset) == ("cortex.requests.high", 3, 7)
    assert origin.timestamp_ms == 1_600_000_000_000
    assert (found.stage, found.tries.attempt, found.waited) == ("validation", 1, None)
    assert found.deadline is not None
    assert found.deadline.remaining_s(now_s=10.0) == 0.25
    assert found.reinjection == Reinjection(
        replay_id=sent.replay_id, publish_to="results", redrives=1
    )


def test_without_a_deadline_it_has_none() -> None:
    assert arrival(redrive(letter()).record).deadline is None


def test_the_replay_id_is_that_of_the_letter_and_the_turn() -> None:
    first, repeated = redrive(letter()), redrive(letter(), Turns(begun=1))
    second = redrive(letter(), Turns(1, 1), again=True)
    other = redrive(letter(place=Place(0, 43)))
    anew = redrive(letter(written_ms=5))

    assert first.replay_id == repeated.replay_id
    assert len({each.replay_id for each in (first, second, other, anew)}) == 4
    assert letter_id(letter(), prefix="staging") != letter_id(letter(), prefix="")
    assert len(first.replay_id) <= 64


def test_a_letter_that_was_redriven_is_left_alone_unless_it_is_asked_for_again() -> None:
    assert refusal(letter(), Turns(1, 1)).reason is Reason.REDRIVEN
    assert refusal(letter(), Turns(1, 1), edited=True).reason is Reason.REDRIVEN
    assert redrive(letter(), Turns(1, 1), again=True).turn == 2


def test_an_interrupted_redrive_goes_on_under_its_own_id_without_being_asked_again() -> None:
    assert redrive(letter(), Turns(begun=2, done=1)).turn == 2
    assert redrive(letter(), Turns(begun=2, done=1), again=True).turn == 2


def test_a_request_that_goes_in_a_circle_is_left_alone_unless_mended_or_asked_for() -> None:
    circling = letter(redrives=MOST_REDRIVES)

    assert refusal(circling).reason is Reason.LOOP
    assert redrive(letter(redrives=MOST_REDRIVES - 1)).redrives == MOST_REDRIVES
    assert redrive(circling, edited=True).edited
    assert redrive(circling, again=True).redrives == MOST_REDRIVES + 1


def test_events_are_left_to_their_producers() -> None:
    assert refusal(letter(topic="cortex.events")).reason is Reason.EVENT
    assert refusal(letter(topic="p.cortex.events"), prefix="p").reason is Reason.EVENT


@pytest.mark.parametrize(
    "topic", ["lake.vectors", "other.cortex.requests.high", "", "cortex.results"]
)
def test_what_came_from_no_request_topic_of_this_system_is_left_alone(topic: str) -> None:
    assert refusal(letter(topic=topic)).reason is Reason.NO_ORIGIN
    assert refusal(letter(topic=topic), prefix="p").reason is Reason.NO_ORIGIN


def test_the_prefix_of_a_system_is_not_part_of_a_topics_name() -> None:
    decision = decide_redrive(letter(topic="p.cortex.requests.low"), NEVER, prefix="p")

    assert isinstance(decision, Redrive)
    assert decision.record.topic == "cortex.stages.validation.low"


@pytest.mark.parametrize("empty", [letter(None), letter(b""), letter(copy=False)])
def test_a_letter_without_a_payload_is_left_alone(empty: Letter) -> None:
    assert refusal(empty).reason is Reason.NO_PAYLOAD


def test_what_would_not_fit_with_our_header_is_left_alone() -> None:
    heavy = replace(letter(headers=[("a", b"1")]), value=b"x" * (MOST_RECORD_BYTES - len(b"key")))

    assert refusal(heavy).reason is Reason.TOO_LARGE
    assert redrive(replace(heavy, key=None, headers=())).record.value == heavy.value


def handed(**fields: object) -> tuple[str, bytes]:
    said = Handover.model_validate(
        {
            "version": 1,
            "stage": "embedding",
            "topic": "cortex.requests.critical",
            "partition": 5,
            "offset": 6,
            "timestamp_ms": 7,
            "attempt": 2,
            "spent_ms": 1.0,
            "left_ms": None,
            "progress": None,
            **fields,
        }
    )
    return HANDOVER, said.model_dump_json().encode()


def test_of_a_hand_over_that_failed_the_source_record_is_put_back() -> None:
    headers = [("a", b"1"), handed(), (VECTORS, b"1234")]

    sent = redrive(letter(headers=headers, topic="cortex.stages.embedding.critical"))

    assert sent.record.topic == "cortex.stages.validation.critical"
    origin = arrival(sent.record).origin
    assert (origin.topic, origin.partition, origin.offset) == ("cortex.requests.critical", 5, 6)
    assert list(origin.headers) == [("a", b"1")]


def test_of_a_failed_retry_the_lane_is_the_one_that_it_says() -> None:
    waiting = Waiting(
        retry=1, lane=Lane.CRITICAL, due_unix_ms=1, first_failed_unix_ms=1, code="stuck_run"
    )

    sent = redrive(letter(headers=[handed(waiting=waiting)], topic="cortex.retries.1"))
    silent = redrive(letter(headers=[handed()], topic="cortex.retries.1"))

    assert sent.record.topic == "cortex.stages.validation.critical"
    assert silent.record.topic == "cortex.stages.validation.low"


@pytest.mark.parametrize("headers", [[], [("a", b"1")], [(HANDOVER, b"{}")], [(HANDOVER, None)]])
def test_an_unreadable_hand_over_is_put_back_with_its_own_coordinates(
    headers: list[tuple[str, bytes | None]],
) -> None:
    sent = redrive(letter(headers=headers, topic="cortex.retries.2"))

    assert sent.record.topic == "cortex.stages.validation.low"
    origin = arrival(sent.record, Lane.LOW).origin
    assert (origin.topic, origin.partition, origin.offset) == ("cortex.retries.2", 3, 7)
    assert all(name != HANDOVER for name, _ in origin.headers)


def test_what_a_replay_had_put_back_stays_a_replay() -> None:
    live = Reinjection(replay_id="r", publish_to="results")
    unreadable = redrive(letter(topic="cortex.requests.replay"))
    said = redrive(letter(headers=[handed(reinjection=live)], topic="cortex.requests.replay"))

    assert unreadable.record.topic == said.record.topic == "cortex.requests.replay"
    answers = [arrival(each.record, Lane.REPLAY).reinjection for each in (unreadable, said)]
    assert [each.publish_to for each in answers if each] == ["replays", "results"]


def test_the_audit_tells_who_redrove_what_and_whether_it_was_sent() -> None:
    sent = redrive(letter(), edited=True)

    record = audit_record(sent, done=False, principal="ann@desk", now_unix_ms=1000)

    assert (record.topic, record.key) == ("cortex.audit", b"ann@desk")
    said = AuditRecord.model_validate_json(record.value or b"")
    assert (said.action, said.subject) == ("dead_letter.redrive", "cortex.dead-letters/0/42")
    assert said.at == "1970-01-01T00:00:01.000Z"
    assert said.details == {
        "replay_id": sent.replay_id,
        "turn": 1,
        "redrives": 1,
        "edited": True,
        "request_id": "r1",
    }


def test_what_the_audit_tells_is_remembered() -> None:
    turns: dict[str, Turns] = {}
    name = letter_id(letter(), prefix="")

    remember(turns, audit_record(redrive(letter()), done=False, principal="a", now_unix_ms=0).value)
    assert turns == {name: Turns(begun=1)}
    assert turns[name].cut

    remember(turns, audit_record(redrive(letter()), done=True, principal="a", now_unix_ms=0).value)
    assert turns == {name: Turns(1, 1)}
    assert not turns[name].cut


def test_the_order_in_which_the_audit_is_read_does_not_matter() -> None:
    first = redrive(letter())
    second = redrive(letter(), Turns(1, 1), again=True)
    records = [
        audit_record(each, done=done, principal="a", now_unix_ms=0).value
        for each in (second, first)
        for done in (True, False)
    ]
    turns: dict[str, Turns] = {}

    for record in records:
        remember(turns, record)

    assert turns == {letter_id(letter(), prefix=""): Turns(2, 2)}


def other_record(action: str = "dead_letter.redrive", **details: str | int) -> bytes:
    return (
        AuditRecord(
            schema_version="cortex.audit.v1",
            at="",
            principal="a",
            action=action,
            subject="s",
            details=dict(details),
        )
        .model_dump_json()
        .encode()
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{}",
        b"\xff",
        other_record(),
        other_record(replay_id="redrive-x"),
        other_record(replay_id="replay-1-1"),
        other_record(replay_id=7),
        other_record("model.published", replay_id="redrive-abc-1"),
    ],
)
def test_what_else_is_in_the_audit_does_not_count(value: bytes | None) -> None:
    turns: dict[str, Turns] = {}

    remember(turns, value)

    assert turns == {}


def test_names_of_headers_are_ours_to_the_last() -> None:
    assert {names.TRUNCATED, names.REDRIVE_COUNT, *names.HEADERS} == OURS
