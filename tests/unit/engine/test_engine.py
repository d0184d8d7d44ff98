"""One request's life, with a stub model under a real scheduler."""

import asyncio
import base64
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.delivery.identity import unreadable_outcome_id
from cortex_stream.delivery.outcome import rfc3339
from cortex_stream.engine.engine import Engine
from cortex_stream.engine.models import ServedModel
from cortex_stream.errors import (
    InferenceFailed,
    InvalidOutput,
    InvariantError,
    OutcomeTooLarge,
)
from cortex_stream.inference.tensors import FloatRows
from cortex_stream.inference.tokenizer import TokenRow
from cortex_stream.record import RecordSource
from cortex_stream.settings.sections import LimitsSettings
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.handovers import Reinjection
from schemas.outcomes import ClassifyOutput, EmbedOutput, OutcomeKind
from schemas.priority import Lane
from schemas.requests import CLASSIFY, EMBED
from schemas.vectors import LakeVector
from tests.unit.engine.desk import (
    NEVER_LATER,
    code_of,
    letter_of,
    message_of,
    open_engine,
    put_back,
    record_of,
    request,
    source,
)

NOW_MS = 1_700_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(unix_ms=NOW_MS)


@pytest.fixture
def runner() -> StubRunner:
    return StubRunner()


@pytest.fixture
async def engine(clock: ManualClock, runner: StubRunner) -> AsyncIterator[Engine]:
    async with open_engine(stub_model(runners=(runner,)), clock=clock) as engine:
        yield engine


class LaneSpy(StubRunner):
    """Remembers in which lane the rows were that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: list[Lane] = []
        self.served: ServedModel | None = None

    def run(self, rows: Sequence[TokenRow]) -> FloatRows:
        """Note the lanes, then run."""
        assert self.served is not None
        self.lanes += [lane for lane, n in self.served.dispatcher.running.items() if n]
        return super().run(rows)


def vectors_of(texts: Sequence[str]) -> FloatRows:
    model = stub_model()
    return model.runners[0].run(model.tokenizer.encode(texts))


# ---- results -------------------------------------------------------------------------------------


async def test_an_embed_request_is_answered_in_input_order_as_base64_by_default(
    engine: Engine,
) -> None:
    texts = ["hello", "a", "a longer text than the others"]

    outcome = await engine.process(request(texts), source())

    message = message_of(outcome)
    output = message.data.output
    assert isinstance(output, EmbedOutput)
    assert (output.encoding_format, output.dims) == ("base64", 8)
    decoded = [np.frombuffer(base64.b64decode(str(text)), "<f4") for text in output.vectors]
    assert np.array_equal(decoded, vectors_of(texts))
    assert output.tokens == [7, 3, 31]
    assert output.truncated == [False] * 3
    assert message.data.model is not None
    assert (message.data.model.name, message.data.model.version) == ("stub", "1")
    assert (message.type, message.data.attempt) == ("cortex.outcome.result.v1", 1)
    assert [record.topic for record in outcome.records] == ["cortex.results"]


async def test_vectors_may_be_asked_for_as_json_numbers(engine: Engine) -> None:
    value = request(data={"encoding_format": "float"})

    output = message_of(await engine.process(value, source())).data.output

    assert isinstance(output, EmbedOutput)
    assert np.array_equal(np.array(output.vectors, np.float32), vectors_of(["hello"]))


async def test_a_text_longer_than_the_model_reads_is_truncated_and_says_so(engine: Engine) -> None:
    value = request(["x" * 1000, "x"])

    output = message_of(await engine.process(value, source())).data.output

    assert isinstance(output, EmbedOutput)
    assert (output.tokens, output.truncated) == ([256, 3], [True, False])


async def test_texts_without_labels_of_a_model_are_compared_with_the_given_labels_best_first(
    engine: Engine,
) -> None:
    value = request(["spam", "other"], type=CLASSIFY, data={"labels": ["ham", "spam", "eggs"]})

    output = message_of(await engine.process(value, source())).data.output

    assert isinstance(output, ClassifyOutput)
    first, second = output.classifications
    assert first[0].label == "spam"  # the same text has the same vector
    assert first[0].score > 0.5
    for ranked in (first, second):
        assert {each.label for each in ranked} == {"ham", "spam", "eggs"}
        scores = [each.score for each in ranked]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert output.tokens == [6, 7]  # of the texts, not of the labels


async def test_with_multi_label_each_label_is_scored_on_its_own(engine: Engine) -> None:
    data = {"labels": ["spam", "ham"], "multi_label": True}

    outcome = await engine.process(request(["spam"], type=CLASSIFY, data=data), source())

    output = message_of(outcome).data.output
    assert isinstance(output, ClassifyOutput)
    assert output.classifications[0][0].label == "spam"
    assert output.classifications[0][0].score == pytest.approx(1.0)


async def test_an_embedding_model_needs_labels_to_classify(engine: Engine) -> None:
    outcome = await engine.process(request(type=CLASSIFY), source())

    assert code_of(outcome) == "invalid_field"
    error = message_of(outcome).data.error
    assert error is not None
    assert error.field == "data.labels"


async def test_a_classifier_scores_its_own_labels_or_the_wanted_ones_among_them() -> None:
    classifier = stub_model(
        name="mood", task="sequence-classification", labels=("sad", "glad", "mad")
    )
    async with open_engine(classifier) as engine:
        all_of_them = await engine.process(request(type=CLASSIFY), source())
        some = await engine.process(
            request(type=CLASSIFY, data={"labels": ["mad", "sad"]}), source()
        )
        unknown = await engine.process(
            request(type=CLASSIFY, data={"labels": ["sad", "bad"]}), source()
        )
        embed = await engine.process(request(), source())

    whole, part = (message_of(each).data.output for each in (all_of_them, some))
    assert isinstance(whole, ClassifyOutput)
    assert isinstance(part, ClassifyOutput)
    assert {each.label for each in whole.classifications[0]} == {"sad", "glad", "mad"}
    assert part.classifications[0] == [
        each for each in whole.classifications[0] if each.label != "glad"
    ]
    for refused, field in ((unknown, "data.labels[1]"), (embed, "data.model")):
        error = message_of(refused).data.error
        assert error is not None
        assert (error.code, error.field) == ("invalid_field", field)


async def test_256_texts_are_answered(engine: Engine, runner: StubRunner) -> None:
    texts = [f"text number {n} {'x' * (n % 50)}" for n in range(256)]

    output = message_of(await engine.process(request(texts), source())).data.output

    assert isinstance(output, EmbedOutput)
    decoded = [np.frombuffer(base64.b64decode(str(text)), "<f4") for text in output.vectors]
    assert np.array_equal(decoded, vectors_of(texts))
    assert sum(runner.batches) == 256


async def test_a_long_request_is_tokenised_aside_with_the_same_answer(engine: Engine) -> None:
    texts = ["x" * 200 + str(n) for n in range(60)]  # 12,000 characters

    output = message_of(await engine.process(request(texts), source())).data.output

    assert isinstance(output, EmbedOutput)
    decoded = [np.frombuffer(base64.b64decode(str(text)), "<f4") for text in output.vectors]
    assert np.array_equal(decoded, vectors_of(texts))


async def test_timings_tell_queue_stages_and_total(engine: Engine, clock: ManualClock) -> None:
    clock.advance_s(2)

    outcome = await engine.process(
        request(type=CLASSIFY, data={"labels": ["a"]}), source(received_s=1000.0)
    )

    assert message_of(outcome).data.timings_ms == {
        "queue": 0.0,
        "embedding": 0.0,
        "inference": 0.0,
        "total": 2000.0,
    }


async def test_the_trace_goes_on_in_the_outcome(engine: Engine) -> None:
    outcome = await engine.process(request(traceparent="00-ab-cd-01"), source())

    assert message_of(outcome).traceparent == "00-ab-cd-01"


async def test_a_binary_request_is_answered_by_a_structured_outcome(engine: Engine) -> None:
    headers = [("ce_id", b"9"), ("ce_type", b"cortex.nlp.embed.v1"), ("ce_source", b"//shop")]

    answered = await engine.process(b'{"texts":["hello"]}', source(headers=headers))
    refused = await engine.process(b'{"texts":[]}', source(headers=headers))

    for outcome in (answered, refused):
        assert record_of(outcome).headers == ()
        assert message_of(outcome).datacontenttype == "application/json"
        assert message_of(outcome).data.request_id == "9"


@pytest.mark.parametrize(
    ("input_type", "read_as"),
    [("query", "query: hello"), ("passage", "passage: hello"), (None, "passage: hello")],
)
async def test_a_model_trained_with_prefixes_reads_them_by_input_type(
    input_type: str | None, read_as: str
) -> None:
    prefixed = replace(stub_model(), prefixes={"query": "query: ", "passage": "passage: "})
    async with open_engine(prefixed) as engine:
        outcome = await engine.process(request(data={"input_type": input_type}), source())

    output = message_of(outcome).data.output
    assert isinstance(output, EmbedOutput)
    assert output.tokens == [len(read_as) + 2]
    vector = np.frombuffer(base64.b64decode(str(output.vectors[0])), "<f4")
    assert np.array_equal([vector], vectors_of([read_as]))


# ---- lake vectors and replays --------------------------------------------------------------------


async def test_lake_gets_an_embedding_only_when_the_request_has_a_subject_which_is_its_key(
    engine: Engine,
) -> None:
    value = request(["a", "b"], subject="doc-9", source="//lake", tenant="acme")

    outcome = await engine.process(value, source())

    result, lake = outcome.records
    vector = LakeVector.model_validate_json(lake.value or b"", strict=True)
    assert (lake.topic, lake.key) == ("lake.vectors", b"doc-9")
    assert (vector.subject, vector.request_id, vector.tenant) == ("doc-9", "1", "acme")
    assert vector.outcome_id == outcome.outcome_id
    output = orjson.loads(result.value or b"")["data"]["output"]
    assert vector.vectors == output["vectors"]


async def test_tenant_is_the_source_where_none_is_named(engine: Engine) -> None:
    outcome = await engine.process(request(subject="doc", source="//lake"), source())

    vector = LakeVector.model_validate_json(outcome.records[1].value or b"")
    assert vector.tenant == "//lake"


async def test_a_classification_with_a_subject_gives_lake_nothing(engine: Engine) -> None:
    value = request(type=CLASSIFY, data={"labels": ["a"]}, subject="doc")

    outcome = await engine.process(value, source())

    assert [record.topic for record in outcome.records] == ["cortex.results"]


REPLAY = Reinjection(replay_id="r1", publish_to="replays")
REDRIVE = Reinjection(replay_id="d1", publish_to="results", redrives=2)


async def test_a_replay_is_answered_apart_with_an_outcome_id_of_its_own(engine: Engine) -> None:
    value = request(subject="doc")

    live = await engine.process(value, source())
    replay = await engine.process(value, put_back(REPLAY))
    again = await engine.process(value, put_back(REPLAY))

    assert [record.topic for record in replay.records] == ["cortex.replays"]  # none for lake
    assert message_of(replay).data.replay_id == "r1"
    assert replay.outcome_id == again.outcome_id != live.outcome_id


async def test_a_redrive_is_answered_to_everybody_with_an_outcome_id_of_its_own(
    engine: Engine,
) -> None:
    value = request(subject="doc")

    live = await engine.process(value, source())
    redriven = await engine.process(value, put_back(REDRIVE, lane=Lane.HIGH))

    assert [record.topic for record in redriven.records] == ["cortex.results", "lake.vectors"]
    assert message_of(redriven).data.replay_id == "d1"
    assert redriven.outcome_id != live.outcome_id


@pytest.mark.parametrize("value", [request(texts=[]), b"junk"], ids=["refused", "unreadable"])
async def test_a_redrive_that_fails_again_says_how_often_it_was_and_where_it_came_from(
    engine: Engine, value: bytes
) -> None:
    before = await engine.process(value, source())
    outcome = await engine.process(value, put_back(REDRIVE))

    assert outcome.outcome_id != before.outcome_id
    letter = letter_of(outcome)
    headers = dict(letter.headers)
    assert "cortex_dlt-redrive-count" not in dict(letter_of(before).headers)
    assert headers["cortex_dlt-redrive-count"] == b"2"
    assert headers["cortex_dlt-original-topic"] == b"cortex.requests.medium"
    assert headers["cortex_dlt-original-offset"] == b"7"
    assert (letter.value, "cortex_handover" in headers) == (value, False)


async def test_a_replay_that_fails_leaves_no_dead_letter_of_what_is_there_already(
    engine: Engine,
) -> None:
    outcome = await engine.process(request(texts=[]), put_back(REPLAY))

    assert [record.topic for record in outcome.records] == ["cortex.replays"]
    assert code_of(outcome) == "invalid_field"


async def test_what_a_client_says_about_replays_is_not_believed(engine: Engine) -> None:
    [header] = put_back(REPLAY).headers
    headers = [header, ("cortex_replay-id", b"r1")]

    outcome = await engine.process(request(), source(headers=headers))

    assert record_of(outcome).topic == "cortex.results"
    assert message_of(outcome).data.replay_id is None


async def test_a_request_that_is_put_back_has_the_time_that_is_given_to_it_anew(
    engine: Engine, clock: ManualClock
) -> None:
    value = request(deadlinems=1000)
    clock.advance_s(3600)
    place = replace(put_back(REDRIVE, left_ms=1000.0), timestamp_ms=clock.unix_ms())

    in_time = await engine.process(value, place)
    clock.advance_s(1)
    late = await engine.process(value, place)

    assert (in_time.kind, late.kind) == (OutcomeKind.RESULT, OutcomeKind.EXPIRED)


# ---- outcome ids ---------------------------------------------------------------------------------


async def test_the_same_request_has_the_same_outcome_id_wherever_it_is_read(engine: Engine) -> None:
    spelled = b"""
      { "data" : {"encoding_format":"base64", "texts":["h\\u0065llo"]}, "time":"2026-01-31T12:00:00Z",
        "type":"cortex.nlp.embed.v1","id":"1" }"""

    outcomes = [
        await engine.process(request(data={"encoding_format": "base64"}), source()),
        await engine.process(request(data={"encoding_format": "base64"}), source(offset=99)),
        await engine.process(spelled, source(lane=Lane.LOW)),
    ]

    assert len({outcome.outcome_id for outcome in outcomes}) == 1
    assert message_of(outcomes[0]).id == outcomes[0].outcome_id


async def test_another_payload_source_or_id_has_another_outcome_id(engine: Engine) -> None:
    values = [
        request(),
        request(["hello!"]),
        request(id="2"),
        request(source="//other"),
        request(data={"model": "stub"}),
        request(type=CLASSIFY, data={"labels": ["a"]}),
        request(type=CLASSIFY),
        request(id="2", data={"modle": "a"}),
    ]

    outcomes = [await engine.process(value, source()) for value in values]

    assert len({outcome.outcome_id for outcome in outcomes}) == len(values)


async def test_a_record_whose_id_cannot_be_read_is_known_by_its_place(engine: Engine) -> None:
    first = await engine.process(b"junk", source(offset=1))
    again = await engine.process(b"junk", source(offset=1))
    other = await engine.process(b"junk", source(offset=2))

    assert first.outcome_id == again.outcome_id != other.outcome_id
    assert message_of(first).data.request_id is None
    assert record_of(first).key == record_of(again).key  # so both are in one partition


# ---- refusals ------------------------------------------------------------------------------------


async def test_a_refused_request_is_told_and_leaves_its_bytes_as_evidence(engine: Engine) -> None:
    value = request(data={"modle": "x"})
    place = source(headers=[("trace", b"\xff")])

    outcome = await engine.process(value, place)

    message = message_of(outcome)
    assert (message.type, message.subject) == ("cortex.outcome.rejected.v1", "1")
    error = message.data.error
    assert error is not None
    assert error.model_dump() == {
        "code": "invalid_field",
        "field": "data.modle",
        "message": "data.modle: no such field; there are texts, model, encoding_format, input_type",
        "retryable": False,
    }
    letter = letter_of(outcome)
    assert (letter.key, letter.value) == (b"key", value)
    assert letter.headers[0] == ("trace", b"\xff")
    assert dict(letter.headers)["cortex_dlt-stage"] == b"validation"
    assert message.data.timings_ms == {"total": 0.0}


async def test_an_unknown_model_is_refused_with_those_that_are_served(engine: Engine) -> None:
    for model in ("gpt", "stub@2"):
        error = message_of(
            await engine.process(request(data={"model": model}), source())
        ).data.error

        assert error is not None
        assert (error.code, error.field) == ("unknown_model", "data.model")
        assert f"'{model}' is not served here; served: stub@1" in error.message


@pytest.mark.parametrize("model", ["stub", "stub@1"])
async def test_a_model_is_found_by_name_and_by_name_and_version(engine: Engine, model: str) -> None:
    outcome = await engine.process(request(data={"model": model}), source())

    assert code_of(outcome) is None


async def test_the_type_in_a_refusal_is_a_known_one_or_unknown(engine: Engine) -> None:
    unknown = await engine.process(request(type="evil.type.v1" + "x" * 200), source())
    known = await engine.process(request(texts=[]), source())

    assert (unknown.type, known.type) == ("unknown", "cortex.nlp.embed.v1")


async def test_an_endless_message_is_bounded_in_the_outcome_and_in_the_letter() -> None:
    limits = LimitsSettings(error_message_bytes=256)
    async with open_engine(limits=limits) as engine:
        outcome = await engine.process(request(type="ü" * 250), source())

    error = message_of(outcome).data.error
    assert error is not None
    assert len(error.message.encode()) <= 256
    assert dict(letter_of(outcome).headers)["cortex_dlt-message"] == error.message.encode()


async def test_a_message_has_8_kib_at_most_unless_set_otherwise() -> None:
    runner = failing(InvalidOutput("x" * 100_000))
    async with open_engine(stub_model(runners=(runner,))) as engine:
        outcome = await engine.process(request(), source())

    error = message_of(outcome).data.error
    assert error is not None
    assert error.message == "x" * 8192
    assert dict(letter_of(outcome).headers)["cortex_dlt-message"] == b"x" * 8192


# ---- failures ------------------------------------------------------------------------------------


def failing(*errors: Exception | None) -> StubRunner:
    return StubRunner(failures=iter(errors))


async def test_a_retryable_failure_is_tried_again(clock: ManualClock) -> None:
    runner = failing(InferenceFailed("once"), InferenceFailed("twice"))
    async with open_engine(stub_model(runners=(runner,)), clock=clock) as engine:
        outcome = await engine.process(request(), source())

    assert code_of(outcome) is None
    assert message_of(outcome).data.attempt == 3


async def test_after_the_last_attempt_a_dead_letter_says_how_many_there_were(
    clock: ManualClock,
) -> None:
    runner = failing(*[InferenceFailed("the device is gone")] * 3)
    model = stub_model(runners=(runner,))
    async with open_engine(model, clock=clock, retries=NEVER_LATER) as engine:
        outcome = await engine.process(request(), source())

    message = message_of(outcome)
    assert message.type == "cortex.outcome.dead_letter.v1"
    assert (code_of(outcome), message.data.attempt) == ("inference_failed", 3)
    assert message.data.error is not None
    assert message.data.error.retryable
    headers = dict(letter_of(outcome).headers)
    assert headers["cortex_dlt-attempts"] == b"3"
    assert headers["cortex_dlt-stage"] == b"embedding"
    assert headers["cortex_dlt-model"] == b"stub@1"
    assert letter_of(outcome).value == request()


async def test_a_failure_that_no_retry_mends_is_not_retried(clock: ManualClock) -> None:
    runner = failing(InvalidOutput("NaN"))
    async with open_engine(stub_model(runners=(runner,)), clock=clock) as engine:
        outcome = await engine.process(request(), source())

    assert (code_of(outcome), message_of(outcome).data.attempt) == ("invalid_output", 1)


async def test_an_unforeseen_error_ends_the_one_request_that_met_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    with monkeypatch.context() as patch:
        patch.setattr(ServedModel, "run", explode)
        outcome = await engine.process(request(), source())

    error = message_of(outcome).data.error
    assert error is not None
    assert error.code == "internal"
    assert error.message == "in stage embedding: ZeroDivisionError: division by zero"
    assert letter_of(outcome).value == request()
    assert code_of(await engine.process(request(), source())) is None


async def test_a_broken_invariant_is_no_answer_to_a_request(clock: ManualClock) -> None:
    runner = failing(InvariantError("lane vanished; this is a bug"))
    async with open_engine(stub_model(runners=(runner,)), clock=clock) as engine:
        with pytest.raises(InvariantError):
            await engine.process(request(), source())


async def test_an_outcome_that_is_too_large_becomes_a_dead_letter() -> None:
    async with open_engine(limits=LimitsSettings(outcome_bytes=1024)) as engine:
        outcome = await engine.process(request(["x"] * 50), source())

    message = message_of(outcome)
    assert message.type == "cortex.outcome.dead_letter.v1"
    assert code_of(outcome) == "outcome_too_large"
    assert len(letter_of(outcome).value or b"") > 0
    assert len(record_of(outcome).value or b"") < 1024


async def test_what_the_broker_finds_too_large_is_replaced_under_the_same_outcome_id(
    engine: Engine,
) -> None:
    outcome = await engine.process(request(subject="doc"), source())

    error = OutcomeTooLarge("the broker refused 9 MB")
    instead = engine.too_large(outcome, request(subject="doc"), source(), error)

    assert instead.outcome_id == outcome.outcome_id == message_of(instead).id
    assert message_of(instead).data.request_id == "1"
    assert code_of(instead) == "outcome_too_large"
    assert [record.topic for record in instead.records] == ["cortex.results", "cortex.dead-letters"]


async def test_what_replaces_a_too_large_outcome_counts_the_attempts_that_there_were(
    clock: ManualClock,
) -> None:
    runner = failing(InferenceFailed("once"))
    async with open_engine(stub_model(runners=(runner,)), clock=clock) as engine:
        outcome = await engine.process(request(), source())

    instead = engine.too_large(outcome, request(), source(), OutcomeTooLarge("9 MB"))

    assert message_of(outcome).data.attempt == 2
    assert message_of(instead).data.attempt == 2
    assert dict(letter_of(instead).headers)["cortex_dlt-attempts"] == b"2"


# ---- deadlines -----------------------------------------------------------------------------------


async def test_a_request_whose_deadline_has_passed_ends_expired_without_running(
    engine: Engine, runner: StubRunner
) -> None:
    value = request(deadlinems=1000, time=rfc3339(NOW_MS - 1500))

    outcome = await engine.process(value, source())

    message = message_of(outcome)
    assert message.type == "cortex.outcome.expired.v1"
    error = message.data.error
    assert error is not None
    assert error.message == "arriving 0.500 s after the deadline, `deadlinems` after `time`"
    assert runner.batches == []
    assert [record.topic for record in outcome.records] == ["cortex.results"]  # no dead letter


LATE: dict[str, Any] = {"deadlinems": 1000, "time": rfc3339(NOW_MS - 1500), "traceparent": "00-a"}


@pytest.mark.parametrize(
    "value",
    [
        request(**LATE, type="no.such.type"),
        request([], **LATE),
        request(**LATE, data={"modle": "stub"}),
        request(**LATE, data={"model": "unknown"}),
    ],
    ids=["type", "texts", "field", "model"],
)
async def test_a_late_request_is_expired_whatever_it_asks(engine: Engine, value: bytes) -> None:
    outcome = await engine.process(value, source())

    assert code_of(outcome) == "deadline_exceeded"
    assert message_of(outcome).data.request_id == "1"
    assert message_of(outcome).traceparent == "00-a"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (request(**LATE)[:-1], "invalid_json"),
        (request(**LATE, priority="urgent"), "invalid_envelope"),
        (orjson.dumps({"id": "1", "type": EMBED, **LATE}), "invalid_envelope"),
    ],
    ids=["json", "attribute", "no data"],
)
async def test_a_late_request_that_is_no_event_is_rejected(
    engine: Engine, value: bytes, code: str
) -> None:
    assert code_of(await engine.process(value, source())) == code


async def test_a_late_request_has_the_outcome_id_that_it_would_have_in_time(
    engine: Engine, clock: ManualClock
) -> None:
    value = request(deadlinems=1000, time=rfc3339(NOW_MS))
    in_time = await engine.process(value, source())
    clock.advance_s(2)

    late = await engine.process(value, source())

    assert (in_time.kind, late.kind) == (OutcomeKind.RESULT, OutcomeKind.EXPIRED)
    assert in_time.outcome_id == late.outcome_id


@pytest.mark.parametrize(
    ("time", "timestamp_ms", "expired"),
    [
        (None, NOW_MS - 999, False),
        (None, NOW_MS - 1000, True),
        (NOW_MS - 1000, NOW_MS, True),
        (NOW_MS + 60_000, NOW_MS - 5000, False),
        (NOW_MS + 61_000, NOW_MS - 5000, True),
        (None, -1, False),
    ],
    ids=["record", "late record", "time", "time in a minute", "time too far ahead", "no time"],
)
async def test_deadlinems_runs_from_time_or_the_records_timestamp_where_time_is_missing_or_ahead(
    engine: Engine, time: int | None, timestamp_ms: int, *, expired: bool
) -> None:
    stated: dict[str, Any] = {}
    if time is not None:
        stated["time"] = dt.datetime.fromtimestamp(time / 1000, dt.UTC)

    outcome = await engine.process(
        request(deadlinems=1000, **stated), source(timestamp_ms=timestamp_ms)
    )

    assert (code_of(outcome) == "deadline_exceeded") == expired


async def test_a_request_that_expires_between_stages_stops_there(clock: ManualClock) -> None:
    class SlowRunner(StubRunner):
        def run(self, rows: Sequence[TokenRow]) -> FloatRows:
            clock.advance_s(3)
            return super().run(rows)

    value = request(["hello"], type=CLASSIFY, data={"labels": ["olleh"]}, deadlinems=2000)
    async with open_engine(stub_model(runners=(SlowRunner(),)), clock=clock) as engine:
        outcome = await engine.process(value, source())

    error = message_of(outcome).data.error
    assert error is not None
    assert (
        error.message
        == "starting stage inference 1.000 s after the deadline, `deadlinems` after `time`"
    )
    assert message_of(outcome).data.timings_ms == {
        "queue": 0.0,
        "embedding": 3000.0,
        "total": 3000.0,
    }


# ---- priority ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lane", "priority", "effective"),
    [
        (Lane.HIGH, None, Lane.HIGH),
        (Lane.HIGH, "low", Lane.LOW),
        (Lane.HIGH, "critical", Lane.HIGH),
        (Lane.LOW, "critical", Lane.LOW),
        (Lane.REPLAY, "critical", Lane.REPLAY),
        (None, None, Lane.MEDIUM),
    ],
)
async def test_the_lane_is_the_ceiling_and_priority_may_only_lower_it(
    lane: Lane | None, priority: str | None, effective: Lane
) -> None:
    spy = LaneSpy()
    wanted: dict[str, Any] = {} if priority is None else {"priority": priority}
    async with open_engine(stub_model(runners=(spy,))) as engine:
        spy.served = engine._models.running("stub")
        await engine.process(request(**wanted), source(lane=lane))

    assert spy.lanes == [effective]


# ---- many at once --------------------------------------------------------------------------------


async def test_requests_at_once_get_each_its_own_answer(engine: Engine) -> None:
    async def ask(number: int) -> tuple[int, RecordSource]:
        place = replace(source(), offset=number)
        texts = [f"{number}-{n}" for n in range(number % 5 + 1)]
        outcome = await engine.process(request(texts, id=str(number)), place)
        output = message_of(outcome).data.output
        assert isinstance(output, EmbedOutput)
        decoded = [np.frombuffer(base64.b64decode(str(text)), "<f4") for text in output.vectors]
        assert np.array_equal(decoded, vectors_of(texts))
        return number, place

    answered = await asyncio.gather(*(ask(number) for number in range(60)))

    assert len(answered) == 60


async def test_a_record_that_cannot_be_decoded_is_rejected_under_its_place(engine: Engine) -> None:
    outcome = engine.unreadable(source(offset=9), "a header name is not UTF-8")

    assert code_of(outcome) == "unreadable_record"
    assert outcome.outcome_id == unreadable_outcome_id(
        topic="cortex.requests.medium", partition=1, offset=9
    )
    assert "not UTF-8" in str(outcome.error)
    assert letter_of(outcome).value is None


async def test_an_unforeseen_error_before_the_stages_is_a_dead_letter(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("cortex_stream.engine.engine.decode", broken)
    monkeypatch.setattr("cortex_stream.engine.reading.decode", broken)

    asked = await engine.process(request(), source())
    told = engine.process_event(b"{}", source(lane=None))

    assert [code_of(asked), code_of(told)] == ["internal", "internal"]
    assert asked.kind is told.kind is OutcomeKind.DEAD_LETTER
