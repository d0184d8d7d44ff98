import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from cortex_stream.bootstrap import worker as module
from cortex_stream.bootstrap.bounds import admission_bounds
from cortex_stream.bootstrap.worker import Worker, build_worker, load_models
from cortex_stream.clock import ManualClock
from cortex_stream.errors import (
    CortexError,
    InferenceFailed,
    InvariantError,
    OperatorError,
    StuckRun,
    UnknownModel,
)
from cortex_stream.scheduling.admission import Bound
from cortex_stream.settings.kafka import KafkaSettings
from cortex_stream.settings.sections import InferenceSettings, LanesSettings
from cortex_stream.settings.tree import Settings
from cortex_stream.task_scope import TaskScope
from cortex_stream.telemetry import metrics
from cortex_stream.testing.stub_runner import StubRunner, stub_model
from schemas.outcomes import OutcomeKind
from tests.tiny_onnx import install_tiny
from tests.unit.engine.desk import code_of, message_of, request, source

EMBED = "cortex.nlp.embed.v1"


def count(kind: str, outcome_type: str, code: str) -> float:
    return float(metrics.OUTCOMES.labels(kind, outcome_type, code)._value.get())


async def test_a_started_worker_answers_and_a_stopped_one_has_no_engine(
    build: Callable[[], Worker],
) -> None:
    worker = build()
    with pytest.raises(InvariantError):
        _ = worker.engine

    await worker.start()
    outcome = await worker.engine.process(request(), source())
    await worker.stop()
    await worker.stop()

    assert code_of(outcome) is None
    assert worker.models is None
    with pytest.raises(InvariantError):
        _ = worker.engine


async def test_a_worker_that_cannot_start_can_be_stopped(
    build: Callable[[], Worker], settings: Settings
) -> None:
    worker = build()
    (settings.models.folder / "tiny").rename(settings.models.folder / "gone")

    with pytest.raises(UnknownModel):
        await worker.start()
    await worker.stop()

    assert worker.models is None


def test_each_consumed_topic_has_its_bound_under_its_name_on_the_cluster() -> None:
    settings = Settings(kafka=KafkaSettings(topic_prefix="staging"))

    bounds = admission_bounds(settings)

    size = settings.lanes.lane_bytes
    assert bounds == {
        "staging.cortex.requests.critical": Bound(1000, size),
        "staging.cortex.requests.high": Bound(1000, size),
        "staging.cortex.requests.medium": Bound(5000, size),
        "staging.cortex.requests.low": Bound(10_000, size),
        "staging.cortex.requests.replay": Bound(128, size),
        "staging.cortex.stages.validation.critical": Bound(125, size // 8),
        "staging.cortex.stages.validation.high": Bound(125, size // 8),
        "staging.cortex.stages.validation.medium": Bound(625, size // 8),
        "staging.cortex.stages.validation.low": Bound(1250, size // 8),
        "staging.cortex.retries.1": Bound(1250, size // 16),
        "staging.cortex.retries.2": Bound(1250, size // 16),
        "staging.cortex.retries.3": Bound(1250, size // 16),
        "staging.cortex.events": Bound(1000, size),
    }


@pytest.mark.parametrize(("lane", "set_back"), [(8, 8), (100, 100), (400, 100), (1600, 200)])
def test_what_was_set_back_has_room_for_two_polls(lane: int, set_back: int) -> None:
    settings = Settings(lanes=LanesSettings(medium=lane))

    bound = admission_bounds(settings)["cortex.stages.validation.medium"]

    assert bound.max_records == set_back


def test_models_larger_than_the_cache_are_not_loaded(settings: Settings) -> None:
    tight = settings.model_copy(update={"model_cache_size": 10})

    with pytest.raises(OperatorError, match="MODEL_CACHE_SIZE allows") as refused:
        load_models(tight)

    assert "CORTEX_MODELS__SERVE" in (refused.value.repair or "")


async def test_a_name_alone_means_the_latest_of_the_served_versions_in_whatever_order(
    build: Callable[[], Worker], settings: Settings, clock: ManualClock
) -> None:
    install_tiny(settings.models.folder, version="9")
    install_tiny(settings.models.folder, version="10")
    models = settings.models.model_copy(update={"serve": ("tiny@10", "tiny@9", "tiny")})
    several = build().settings.model_copy(update={"models": models})

    worker = Worker(several, clock=clock, instance="worker-0")
    await worker.start()
    outcomes = [
        await worker.engine.process(request(data={"model": model}), source())
        for model in (None, "tiny", "tiny@9")
    ]
    served = [model.reference for model in worker.models or ()]
    await worker.stop()

    assert served == ["tiny@9", "tiny@10"]
    identities = [message_of(outcome).data.model for outcome in outcomes]
    assert [each and each.version for each in identities] == ["10", "10", "9"]


async def test_settled_outcomes_are_counted_and_what_went_wrong_is_remembered(
    build: Callable[[], Worker], clock: ManualClock
) -> None:
    worker = build()
    await worker.start()
    good = await worker.engine.process(request(), source())
    bad = await worker.engine.process(request(data={"modle": "x"}), source())
    event = worker.engine.process_event(
        b'{"id":"1","type":"stream.click.v1","data":1}', source(lane=None)
    )
    await worker.stop()
    before = count("result", EMBED, ""), count("rejected", EMBED, "invalid_field")

    clock.advance_s(1)
    for outcome in (good, bad):
        worker.settled(outcome, source())
    worker.settled(event, source(lane=None))

    after = count("result", EMBED, ""), count("rejected", EMBED, "invalid_field")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)
    assert metrics.EVENTS_HANDLED.labels("stream.*")._value.get() >= 1
    [error] = worker.errors.newest()
    assert (error.code, error.request_id, error.offset) == ("invalid_field", "1", 7)
    clock.advance_s(1)
    assert worker.lane_rates.rate_per_s("medium") == 1.0  # two in two seconds
    assert worker.lane_rates.rate_per_s("events") == 0.5


@pytest.mark.parametrize("kind", [OutcomeKind.EXPIRED, OutcomeKind.DEAD_LETTER])
async def test_every_kind_of_failure_is_remembered(
    build: Callable[[], Worker], kind: OutcomeKind
) -> None:
    worker = build()
    await worker.start()
    failed = await worker.engine.process(request(texts=[]), source())
    await worker.stop()

    worker.settled(replace(failed, kind=kind), source())

    assert len(worker.errors.newest()) == 1
    assert message_of(failed).data.request_id == "1"


def test_a_stuck_run_fails_the_worker_and_is_told(build: Callable[[], Worker]) -> None:
    worker = build()
    told: list[CortexError] = []
    stuck = StuckRun("not back")
    worker._fail(stuck)  # nobody listens yet: it is logged

    worker.on_failure = told.append
    worker._fail(stuck)

    assert worker.failure is stuck
    assert told == [stuck]


def test_a_worker_is_named_after_its_machine_and_process(settings: Settings) -> None:
    first, second = build_worker(settings), build_worker(settings)

    assert first.instance == second.instance
    assert first.instance.rpartition("-")[2].isdigit()


async def test_a_retry_is_counted_by_its_topic_and_its_cause_is_remembered(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stub_model(name="tiny", runners=(StubRunner(failures=iter([InferenceFailed("gone")])),))
    monkeypatch.setattr(module, "verify_topics", no_cluster)
    once = settings.model_copy(update={"inference": InferenceSettings(attempts=1)})
    worker = Worker(once, clock=clock, instance="worker-0", load=lambda _: [model])
    await worker.start()
    counter = metrics.RETRIES.labels("1", "inference_failed")
    before = counter._value.get(), metrics.HANDOVERS.labels("validation")._value.get()

    outcome = await worker.engine.process(request(), source())
    worker.settled(outcome, replace(source(lane=None), stage="validation"))
    budget_left = worker.retry_budget_left()
    await worker.stop()

    assert outcome.records[0].topic == "cortex.retries.1"
    after = counter._value.get(), metrics.HANDOVERS.labels("validation")._value.get()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 0)
    [error] = worker.errors.newest()
    assert (error.code, error.message) == ("inference_failed", "gone")
    assert worker.lane_rates.rate_per_s("retries") > 0
    assert (budget_left, worker.retry_budget_left()) == (99.0, 0.0)  # none without an engine


async def test_a_worker_is_busy_until_the_run_of_a_request_that_was_given_up_has_ended(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    runner = StubRunner()
    monkeypatch.setattr(module, "verify_topics", no_cluster)
    models = [stub_model(name="tiny", runners=(runner,))]
    worker = Worker(settings, clock=clock, instance="worker-0", load=lambda _: models)
    await worker.start()
    assert not worker.busy
    runner.released.clear()

    # when
    async with asyncio.timeout(5), TaskScope() as scope:
        answering = scope.start(worker.engine.process(request(), source()), name="answer")
        while not worker.busy:
            await asyncio.sleep(0.001)
        answering.cancel()
        await asyncio.wait([answering])

        # then
        assert worker.busy
        runner.released.set()
        while worker.busy:
            await asyncio.sleep(0.001)
    await worker.stop()


def test_retries_in_the_process_are_counted_by_topic(build: Callable[[], Worker]) -> None:
    worker = build()

    worker.admission.take("cortex.retries.2", records=3, size_bytes=30)

    assert worker.retries_waiting() == 3
    [sample] = [
        sample
        for metric in metrics.RETRIES_WAITING.collect()
        for sample in metric.samples
        if sample.labels["retry"] == "2"
    ]
    assert sample.value == 3


async def no_cluster(_: Settings) -> None:
    return
