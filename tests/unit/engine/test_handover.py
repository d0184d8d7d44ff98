"""A request that goes from worker to worker ends as if it had stayed in one."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_stream.clock import ManualClock
from cortex_stream.deadline import Deadline
from cortex_stream.delivery.outcome import Outcome
from cortex_stream.delivery.retry import Tries
from cortex_stream.engine.engine import Engine
from cortex_stream.engine.handover import hand_over, read_arrival
from cortex_stream.engine.models import KnownModel, ServedModel
from cortex_stream.engine.stage import Progress
from cortex_stream.errors import (
    Expired,
    InferenceFailed,
    InvalidHandover,
    InvariantError,
    OutcomeTooLarge,
)
from cortex_stream.inference.model import LoadedModel
from cortex_stream.record import RecordSource
from cortex_stream.routing.pipeline import STANDARD
from cortex_stream.routing.request import Request, WorkItem
from cortex_stream.routing.route import Route, StageName
from cortex_stream.scheduling.crowding import Crowding
from cortex_stream.telemetry.metrics import REGISTRY
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.handovers import HANDOVER, VECTORS, Reinjection
from schemas.outcomes import ModelIdentity, OutcomeKind
from schemas.priority import Lane
from schemas.requests import CLASSIFY, EMBED, EmbedData, RequestAttributes
from tests.unit.engine.desk import (
    code_of,
    letter_of,
    message_of,
    open_engine,
    put_back,
    request,
    source,
)
from topics.names import DEAD_LETTERS, VALIDATION, stage_topic

NOW_MS = 1_700_000_000_000
LABELS: dict[str, object] = {"labels": ["spam", "ham"]}
EMBEDDING, INFERENCE = StageName.EMBEDDING, StageName.INFERENCE
IDENTITY = ModelIdentity(name="m", version="1", digest="sha256:" + "0" * 64)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(unix_ms=NOW_MS)


@asynccontextmanager
async def hosts(
    *stages: StageName, clock: ManualClock, model: LoadedModel | None = None
) -> AsyncIterator[Engine]:
    """Yield an engine of a worker that hosts only `stages`, and runs only their models."""
    model = model or stub_model()
    known = KnownModel(
        model.reference,
        model.task,
        ModelIdentity(
            name=model.name,
            version=model.version,
            digest=model.digest,
            batch_invariant=model.batch_invariant,
        ),
    )
    runs = EMBEDDING if model.task == "embedding" else INFERENCE
    loaded = (model,) if runs in stages else ()
    async with open_engine(*loaded, clock=clock, stages=stages, known=(known,)) as engine:
        yield engine


def arrived(outcome: Outcome, *, timestamp_ms: int = NOW_MS, offset: int = 99) -> RecordSource:
    """Return what the next worker polls of what was handed over."""
    [record] = outcome.records
    assert outcome.kind is None
    _, _, stage, lane = record.topic.split(".")
    return RecordSource(
        topic=record.topic,
        partition=3,
        offset=offset,
        timestamp_ms=timestamp_ms,
        received_s=1000.0,
        lane=Lane(lane),
        key=record.key,
        headers=record.headers,
        stage=stage,
    )


def value_of(outcome: Outcome) -> bytes | None:
    [record] = outcome.records
    return record.value


def lasting(outcome: Outcome) -> object:
    """Return everything but what tells the time."""
    event = orjson.loads(outcome.records[0].value or b"")
    event["data"]["timings_ms"] = None
    return event, outcome.outcome_id, outcome.kind, outcome.records[1:]


def second_attempt(arrival: RecordSource) -> RecordSource:
    """Return the same hand-over after an attempt has failed."""
    name, told = arrival.headers[-1]
    assert name == HANDOVER
    again = orjson.dumps({**orjson.loads(told or b""), "attempt": 2})
    return replace(arrival, headers=[*arrival.headers[:-1], (name, again)])


def counted_requests() -> float:
    labels = {"lane": "medium", "type": EMBED}
    return REGISTRY.get_sample_value("cortex_requests_total", labels) or 0.0


# ---- the same end --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        request(["one", "two"]),
        request(["one"], data={"encoding_format": "float"}, subject="doc", priority="low"),
        request(["spam", "other"], type=CLASSIFY, data=LABELS),
        request(["x"], data={"model": "nobody"}),
        request(["x"], type=CLASSIFY),
        b'{"id":"1",',
    ],
)
@pytest.mark.parametrize("kinds", [[(), (EMBEDDING, INFERENCE)], [(EMBEDDING,), (INFERENCE,)]])
async def test_it_ends_as_in_one_worker_wherever_its_stages_run(
    value: bytes, kinds: list[tuple[StageName, ...]], clock: ManualClock
) -> None:
    async with open_engine(clock=clock) as fused:
        wanted = await fused.process(value, source())

    outcome, record_source = None, source(received_s=clock.monotonic_s())
    for kind in kinds:
        async with hosts(*kind, clock=clock) as engine:
            outcome = await engine.process(value, record_source)
        if outcome.handed_to is None:
            break
        assert value_of(outcome) == value
        record_source = arrived(outcome)

    assert outcome is not None
    assert lasting(outcome) == lasting(wanted)


async def test_a_model_that_classifies_is_reached_without_embedding(clock: ManualClock) -> None:
    model = stub_model(task="sequence-classification", labels=("a", "b"))
    value = request(["x"], type=CLASSIFY)

    async with hosts(EMBEDDING, clock=clock, model=model) as engine:
        handed = await engine.process(value, source())
    async with hosts(INFERENCE, clock=clock, model=model) as engine:
        outcome = await engine.process(value, arrived(handed))

    assert handed.handed_to == "inference"
    assert outcome.kind is OutcomeKind.RESULT


async def test_it_keeps_its_lane_key_headers_and_bytes(clock: ManualClock) -> None:
    headers = [("mine", b"1"), (HANDOVER, b"a client's"), (VECTORS, None)]
    value = request(["x"], priority="low")

    async with hosts(clock=clock) as engine:
        handed = await engine.process(value, source(lane=Lane.HIGH, headers=headers))
    origin = read_arrival(arrived(handed), now_s=0, now_unix_ms=NOW_MS).origin

    [record] = handed.records
    assert record.topic == stage_topic("embedding", Lane.LOW)
    assert (record.key, record.value) == (b"key", value)
    assert (origin.key, list(origin.headers)) == (b"key", headers)
    assert (origin.topic, origin.partition, origin.offset) == ("cortex.requests.medium", 1, 7)


async def test_a_replay_stays_in_its_lane_and_apart(clock: ManualClock) -> None:
    value = request()
    replay = put_back(Reinjection(replay_id="r1", publish_to="replays"))

    async with hosts(clock=clock) as engine:
        handed = await engine.process(value, replay)
    async with hosts(EMBEDDING, clock=clock) as engine:
        outcome = await engine.process(value, arrived(handed))

    assert handed.records[0].topic == stage_topic("embedding", Lane.REPLAY)
    assert outcome.records[0].topic == "cortex.replays"


# ---- time and tries ------------------------------------------------------------------------------


async def test_what_is_left_of_a_deadline_goes_on_running_between_workers(
    clock: ManualClock,
) -> None:
    value = request(deadlinems=1000)
    async with hosts(clock=clock) as engine:
        handed = await engine.process(value, source())

    clock.advance_s(5000)  # another process: its monotonic clock has nothing in common
    at_999 = read_arrival(arrived(handed), now_s=70, now_unix_ms=NOW_MS + 999)
    before = read_arrival(arrived(handed), now_s=70, now_unix_ms=NOW_MS - 60_000)
    untimed = read_arrival(arrived(handed, timestamp_ms=-1), now_s=70, now_unix_ms=NOW_MS + 999)

    assert at_999.deadline is not None
    assert at_999.deadline.at_s == pytest.approx(70.001)
    assert at_999.progress.timings_ms == {"handover": 999}
    for each in (before, untimed):
        assert each.deadline is not None
        assert each.deadline.at_s == pytest.approx(71)


async def test_one_that_is_late_on_arrival_is_expired_and_never_runs(clock: ManualClock) -> None:
    value, runner = request(deadlinems=1000), StubRunner()
    async with hosts(clock=clock) as engine:
        handed = await engine.process(value, source())

    clock.advance_s(2)
    async with hosts(EMBEDDING, clock=clock, model=stub_model(runners=(runner,))) as engine:
        outcome = await engine.process(value, arrived(handed))

    assert (outcome.kind, code_of(outcome)) == (OutcomeKind.EXPIRED, "deadline_exceeded")
    assert runner.batches == []


async def test_a_hand_over_says_when_its_request_is_due(clock: ManualClock) -> None:
    async with hosts(clock=clock) as engine:
        timed = await engine.process(request(deadlinems=1000), source())
        untimed = await engine.process(request(), source())

    assert timed.deadline == Deadline(clock.monotonic_s() + 1)
    assert untimed.deadline is None


async def test_one_that_is_late_before_the_hand_over_is_not_handed_over(
    clock: ManualClock,
) -> None:
    class Slow(StubRunner):
        def run(self, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            clock.advance_s(2)
            return super().run(rows)

    value = request(type=CLASSIFY, data=LABELS, deadlinems=1000)
    async with hosts(EMBEDDING, clock=clock, model=stub_model(runners=(Slow(),))) as engine:
        outcome = await engine.process(value, source())

    assert outcome.kind is OutcomeKind.EXPIRED


async def test_tries_are_counted_on_in_the_next_worker(clock: ManualClock) -> None:
    model = stub_model(runners=(StubRunner(failures=iter([InferenceFailed("no")] * 2)),))
    value = request(type=CLASSIFY, data=LABELS)

    async with hosts(EMBEDDING, clock=clock, model=model) as engine:
        handed = await engine.process(value, source())
    async with hosts(INFERENCE, clock=clock) as engine:
        outcome = await engine.process(value, arrived(handed))

    assert message_of(outcome).data.attempt == 2


# ---- what arrives broken -------------------------------------------------------------------------


async def broken(
    *, clock: ManualClock, header: bytes | None = None, changes: dict[str, object] | None = None
) -> Outcome:
    """Return what becomes of a hand-over to `inference` whose header was changed."""
    value = request(["x"], type=CLASSIFY, data=LABELS)
    async with hosts(EMBEDDING, clock=clock) as engine:
        handed = await engine.process(value, source())
    arrival = arrived(handed)
    *client, (name, meta), vectors = arrival.headers
    if header is None:
        header = orjson.dumps(orjson.loads(meta or b"") | (changes or {}))
    async with hosts(INFERENCE, clock=clock) as engine:
        spoilt = replace(arrival, headers=[*client, (name, header), vectors])
        return await engine.process(value, spoilt)


def progress(**changes: object) -> dict[str, object]:
    found = {"dims": 8, "labels": 2, "tokens": [3], "truncated": [False], "timings_ms": {}}
    return {**found, "model": IDENTITY.model_dump(), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"stage": "embedding"},
        {"left_ms": "soon"},
        {"offset": -1},
        {"attempt": 0},
        {"attempt": 2**60},
        {"timestamp_ms": -(2**60)},
        {"more": 1},
        {"progress": None},
        {"progress": progress(dims=7)},
        {"progress": progress(labels=1)},
        {"progress": progress(dims=4, labels=5)},
        {"progress": progress(truncated=[])},
        {"progress": progress(tokens=[3, 3], truncated=[False, False], labels=1)},
    ],
)
async def test_a_hand_over_that_contradicts_itself_is_a_dead_letter_with_the_original_bytes(
    changes: dict[str, object], clock: ManualClock
) -> None:
    outcome = await broken(clock=clock, changes=changes)

    assert (outcome.kind, code_of(outcome)) == (OutcomeKind.DEAD_LETTER, "invalid_handover")
    letter = letter_of(outcome)
    assert letter.value == request(["x"], type=CLASSIFY, data=LABELS)


@given(header=st.binary(max_size=60))
async def test_no_header_is_worse_than_a_dead_letter(header: bytes) -> None:
    outcome = await broken(header=header, clock=ManualClock(unix_ms=NOW_MS))

    assert code_of(outcome) == "invalid_handover"


@pytest.mark.parametrize(
    "headers", [(), (("other", b"x"),), ((VECTORS, b"x"),), ((HANDOVER, None),)]
)
async def test_a_record_that_nobody_handed_over_is_a_dead_letter(
    headers: tuple[tuple[str, bytes | None], ...], clock: ManualClock
) -> None:
    stranger = replace(source(headers=headers), stage="embedding")

    async with hosts(EMBEDDING, clock=clock) as engine:
        outcome = await engine.process(request(), stranger)

    assert code_of(outcome) == "invalid_handover"
    assert [record.topic for record in outcome.records] == ["cortex.results", DEAD_LETTERS]


async def test_what_no_replay_put_on_the_replay_topic_is_answered_where_replays_are(
    clock: ManualClock,
) -> None:
    stranger = replace(source(lane=Lane.REPLAY), stage=VALIDATION)

    async with open_engine(clock=clock) as engine:
        outcome = await engine.process(request(), stranger)

    assert code_of(outcome) == "invalid_handover"
    assert [record.topic for record in outcome.records] == ["cortex.replays"]


async def test_vectors_that_are_no_numbers_are_a_dead_letter(clock: ManualClock) -> None:
    value = request(["x"], type=CLASSIFY, data=LABELS)
    async with hosts(EMBEDDING, clock=clock) as engine:
        handed = await engine.process(value, source())
    arrival = arrived(handed)
    nan = np.full((3, 8), np.nan, "<f4").tobytes()

    async with hosts(INFERENCE, clock=clock) as engine:
        outcome = await engine.process(
            value, replace(arrival, headers=[*arrival.headers[:-1], (VECTORS, nan)])
        )

    assert code_of(outcome) == "invalid_handover"


async def test_a_stage_that_the_route_has_not_is_a_dead_letter(clock: ManualClock) -> None:
    value = request(["x"])  # embedding alone answers it
    async with hosts(clock=clock) as engine:
        handed = await engine.process(value, source())
    arrival = arrived(handed)
    (name, meta) = arrival.headers[-1]
    header = orjson.dumps(orjson.loads(meta or b"") | {"stage": "inference"})

    async with hosts(INFERENCE, clock=clock) as engine:
        outcome = await engine.process(
            value, replace(arrival, stage="inference", headers=[(name, header)])
        )

    assert code_of(outcome) == "invalid_handover"
    assert "same pipelines" in str(outcome.error)


async def test_a_hand_over_that_does_not_fit_ends_as_a_dead_letter_of_the_source_record(
    clock: ManualClock,
) -> None:
    value = request()
    async with hosts(clock=clock) as engine:
        handed = await engine.process(value, source())
    async with hosts(EMBEDDING, clock=clock) as engine:
        arrival = arrived(handed)
        outcome = await engine.process(value, arrival)
        replaced = engine.too_large(outcome, value, arrival, OutcomeTooLarge("too large"))

    assert replaced.outcome_id == outcome.outcome_id
    headers = dict(letter_of(replaced).headers)
    assert headers["cortex_dlt-original-topic"] == b"cortex.requests.medium"
    assert headers["cortex_dlt-original-offset"] == b"7"


async def test_a_dead_letter_of_an_unreadable_hand_over_that_does_not_fit_is_replaced_too(
    clock: ManualClock,
) -> None:
    stranger = replace(source(), stage="embedding")

    async with hosts(EMBEDDING, clock=clock) as engine:
        outcome = await engine.process(request(), stranger)
        replaced = engine.too_large(outcome, request(), stranger, OutcomeTooLarge("too large"))

    assert (replaced.outcome_id, code_of(replaced)) == (outcome.outcome_id, "outcome_too_large")


# ---- the codec alone -----------------------------------------------------------------------------


def item(*, deadline: Deadline | None = None, headers: object = ()) -> WorkItem:
    return WorkItem(
        request=Request(
            RequestAttributes(id="1", type=CLASSIFY), EmbedData(texts=["x"]), b"d" * 32
        ),
        source=source(received_s=0.0, headers=headers),  # type: ignore[arg-type]
        lane=Lane.HIGH,
        pipeline=STANDARD,
        route=Route((EMBEDDING, INFERENCE), "m@1"),
        position=0,
        weight_bytes=14_000,
        deadline=deadline,
    )


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    texts=st.integers(1, 6),
    labels=st.integers(0, 4),
    dims=st.integers(1, 5),
    left_s=st.none() | st.floats(-1e6, 1e9),
    attempt=st.integers(1, 9),
    headers=st.lists(st.tuples(st.sampled_from(["a", HANDOVER, VECTORS]), st.none() | st.binary())),
    data=st.data(),
)
def test_what_was_handed_over_arrives_bit_by_bit(
    *,
    texts: int,
    labels: int,
    dims: int,
    left_s: float | None,
    attempt: int,
    headers: list[tuple[str, bytes | None]],
    data: st.DataObject,
) -> None:
    count = (texts + labels) * dims
    numbers = data.draw(st.lists(floats, min_size=count, max_size=count))
    matrix = np.array(numbers, np.float32).reshape(-1, dims)
    found = Progress(
        vectors=matrix[:texts],
        label_vectors=matrix[texts:] if labels else None,
        tokens=tuple(range(texts)),
        truncated=tuple(n % 2 == 0 for n in range(texts)),
        model=IDENTITY,
        timings_ms={"queue": 1.5, "handover": 2.0},
    )
    work = item(deadline=None if left_s is None else Deadline(5 + left_s), headers=headers)

    handed = hand_over(
        work, b"\x00\xff", stage=INFERENCE, progress=found, attempt=attempt, now_s=5.0
    )
    arrival = read_arrival(arrived(handed), now_s=50.0, now_unix_ms=NOW_MS + 250)

    assert value_of(handed) == b"\x00\xff"
    assert (arrival.stage, arrival.tries) == ("inference", Tries(attempt))
    assert replace(arrival.origin, received_s=0.0) == replace(
        work.source, lane=Lane.HIGH, headers=tuple(headers)
    )
    assert arrival.origin.received_s == pytest.approx(50 - 5 - 0.25)
    if left_s is None:
        assert arrival.deadline is None
    else:
        assert arrival.deadline is not None
        assert arrival.deadline.at_s == pytest.approx(50 + left_s - 0.25)
    assert arrival.progress.vectors is not None
    assert arrival.progress.vectors.tobytes() == matrix[:texts].tobytes()
    if labels:
        assert arrival.progress.label_vectors is not None
        assert arrival.progress.label_vectors.tobytes() == matrix[texts:].tobytes()
    else:
        assert arrival.progress.label_vectors is None
    assert (arrival.progress.tokens, arrival.progress.truncated) == (found.tokens, found.truncated)
    assert arrival.progress.model == IDENTITY
    assert arrival.progress.timings_ms == {"queue": 1.5, "handover": 252.0}


def test_a_hand_over_weighs_half_a_kilobyte_and_its_vectors() -> None:
    vectors = np.zeros((1, 384), np.float32)
    found = Progress(vectors, None, (12,), (False,), model=IDENTITY, timings_ms={"queue": 1.0})

    handed = hand_over(item(), b"", stage=INFERENCE, progress=found, attempt=1, now_s=5.0)

    sizes = {name: len(data or b"") for name, data in handed.records[0].headers}
    assert sizes[VECTORS] == 1536
    assert sizes[HANDOVER] < 512


def test_an_answered_request_is_not_handed_over() -> None:
    with pytest.raises(InvariantError):
        hand_over(item(), b"", stage=INFERENCE, progress=Progress(output={}), attempt=1, now_s=5.0)


def test_vectors_without_a_word_about_them_are_refused() -> None:
    handed = hand_over(item(), b"", stage=EMBEDDING, progress=Progress(), attempt=1, now_s=5.0)
    arrival = arrived(handed)

    with pytest.raises(InvalidHandover, match="speaks of no vectors"):
        read_arrival(
            replace(arrival, headers=[*arrival.headers, (VECTORS, b"")]), now_s=0, now_unix_ms=0
        )


# ---- set back ------------------------------------------------------------------------------------


@asynccontextmanager
async def crowded_by(tenant: str, clock: ManualClock) -> AsyncIterator[Engine]:
    """Yield an engine whose medium lane is full of the requests of one of two tenants."""
    crowding = Crowding(lambda _: True, clock=clock)
    async with open_engine(clock=clock, crowding=crowding) as engine:
        with ExitStack() as held:
            for holder in [tenant] * 9 + ["//quiet"]:
                held.enter_context(crowding.counted(Lane.MEDIUM, holder, 14_000))
            yield engine


async def test_in_a_crowded_lane_the_next_request_of_who_holds_it_is_set_back(
    clock: ManualClock,
) -> None:
    value, before = request(tenant="//flood", deadlinems=5000), source(offset=7)

    async with crowded_by("//flood", clock) as engine:
        outcome = await engine.process(value, before)
        other = await engine.process(request(tenant="//quiet"), before)

    assert outcome.handed_to == "validation"
    [record] = outcome.records
    assert (record.topic, record.value) == ("cortex.stages.validation.medium", value)
    assert code_of(other) is None


async def test_in_a_crowded_topic_a_request_that_lowered_itself_goes_on_in_its_own_lane(
    clock: ManualClock,
) -> None:
    lowered, urgent = request(priority="low"), request()
    crowding = Crowding(lambda _: True, clock=clock)

    async with open_engine(clock=clock, crowding=crowding) as engine:
        outcome = await engine.process(lowered, source(lane=Lane.CRITICAL))
        other = await engine.process(urgent, source(lane=Lane.CRITICAL))

    [record] = outcome.records
    assert (record.topic, record.value) == ("cortex.stages.validation.low", lowered)
    assert other.kind is OutcomeKind.RESULT


async def test_a_request_that_was_set_back_ends_as_if_it_had_not_been(clock: ManualClock) -> None:
    value, before = request(["a", "b"], tenant="//flood", id="r-1"), source(offset=7)
    async with open_engine(clock=clock) as engine:
        at_once = await engine.process(value, before)

    async with crowded_by("//flood", clock) as engine:
        set_back = await engine.process(value, before)
        outcome = await engine.process(value_of(set_back), arrived(set_back))

    assert lasting(outcome) == lasting(at_once)  # and it was not set back a second time


@pytest.mark.parametrize(
    "value",
    [
        request(tenant="//flood", type="cortex.nlp.unknown.v1"),
        request([], tenant="//flood"),
        request(tenant="//flood", data={"texts": "a"}),
    ],
)
async def test_what_a_request_asks_is_looked_at_when_its_turn_comes(
    clock: ManualClock, value: bytes
) -> None:
    before = source(offset=7)
    async with open_engine(clock=clock) as engine:
        at_once = await engine.process(value, before)

    async with crowded_by("//flood", clock) as engine:
        set_back = await engine.process(value, before)
        outcome = await engine.process(value_of(set_back), arrived(set_back))

    assert set_back.handed_to == "validation"
    assert outcome.kind is OutcomeKind.REJECTED
    assert lasting(outcome) == lasting(at_once)


@pytest.mark.parametrize(
    "value",
    [
        request(tenant="//flood"),
        request(tenant="//flood", deadlinems=5000),
        request(["x" * 1000] * 40, tenant="//flood"),
    ],
)
async def test_a_request_that_is_set_back_is_counted_once_and_not_at_its_next_attempt(
    clock: ManualClock, value: bytes
) -> None:
    before = counted_requests()
    async with crowded_by("//flood", clock) as engine:
        set_back = await engine.process(value, source())
        meanwhile = counted_requests()
        at_its_turn = arrived(set_back)
        _ = await engine.process(value, at_its_turn)
        once = counted_requests()
        _ = await engine.process(value, second_attempt(at_its_turn))

    assert set_back.handed_to == "validation"
    assert (meanwhile - before, once - before, counted_requests() - once) == (0, 1, 0)


async def test_a_large_request_is_set_back_once_it_was_read_aside(clock: ManualClock) -> None:
    value = request(["x" * 1000] * 40, tenant="//flood")

    async with crowded_by("//flood", clock) as engine:
        begun = engine.begin(value, source())
        assert not isinstance(begun, Outcome)
        set_back = await begun()
        outcome = await engine.process(value, arrived(set_back))

    assert set_back.handed_to == "validation"
    assert outcome.kind is OutcomeKind.RESULT


async def test_what_would_wait_beyond_its_deadline_is_told_so_at_once(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(_: ServedModel, **_asked: object) -> None:
        raise Expired("too much waits")

    monkeypatch.setattr(ServedModel, "check_time", too_late)

    async with crowded_by("//flood", clock) as engine:
        outcome = await engine.process(request(tenant="//flood", deadlinems=5000), source())

    assert (outcome.kind, outcome.handed_to) == (OutcomeKind.EXPIRED, None)


async def test_one_that_cannot_be_set_back_ends_as_a_dead_letter_under_its_own_id(
    clock: ManualClock,
) -> None:
    value = request(tenant="//flood")
    async with open_engine(clock=clock) as engine:
        answered = await engine.process(value, source())

    async with crowded_by("//flood", clock) as engine:
        set_back = await engine.process(value, source())
        replaced = engine.too_large(set_back, value, source(), OutcomeTooLarge("too large"))

    assert (replaced.kind, replaced.type) == (OutcomeKind.DEAD_LETTER, answered.type)
    assert replaced.outcome_id == answered.outcome_id


async def test_the_deadline_of_a_request_runs_on_while_it_is_set_back(clock: ManualClock) -> None:
    value = request(tenant="//flood", deadlinems=5000)
    async with crowded_by("//flood", clock) as engine:
        set_back = await engine.process(value, source(timestamp_ms=NOW_MS))
        clock.advance_s(6)
        outcome = await engine.process(value, arrived(set_back))

    assert outcome.kind is OutcomeKind.EXPIRED
