"""A worker that hosts some of the stages, put together from settings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cortex_stream.bootstrap import worker as module
from cortex_stream.bootstrap.bounds import admission_bounds
from cortex_stream.bootstrap.worker import Worker
from cortex_stream.clock import ManualClock
from cortex_stream.errors import OperatorError
from cortex_stream.settings.stages import HostedStage, PipelinesSettings, WorkerSettings
from cortex_stream.settings.tree import Settings
from cortex_stream.telemetry import metrics
from schemas.priority import Lane
from tests.unit.engine.desk import code_of, request, source

PIPELINES = """\
version: 1
pipelines:
  - name: own
    types: [cortex.nlp.embed.v1]
    stages: [{name: embedding}]
    model: MODEL
"""


@pytest.fixture
def hosting(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Worker]:
    """Build workers of some stages, whose cluster is not asked for its topics."""

    async def no_cluster(_: Settings) -> None:
        return

    def build(*stages: HostedStage) -> Worker:
        split = settings.model_copy(update={"worker": WorkerSettings(stages=stages)})
        return Worker(split, clock=clock, instance="worker-0")

    monkeypatch.setattr(module, "verify_topics", no_cluster)
    return build


async def test_a_worker_that_only_validates_loads_no_model_and_hands_over(
    hosting: Callable[..., Worker],
) -> None:
    before = metrics.HANDOVERS.labels("embedding")._value.get()
    worker = hosting("validation")
    await worker.start()

    good = await worker.engine.process(request(), source())
    unknown = await worker.engine.process(request(data={"model": "nobody"}), source())
    worker.settled(good, source())
    loaded = list(worker.models or ())
    await worker.stop()

    assert loaded == []
    assert good.handed_to == "embedding"
    assert code_of(unknown) == "unknown_model"
    assert metrics.HANDOVERS.labels("embedding")._value.get() == before + 1


async def test_a_worker_loads_the_models_that_its_stages_run(
    hosting: Callable[..., Worker],
) -> None:
    loaded = {}
    for stage in ("embedding", "inference"):
        worker = hosting(stage)
        await worker.start()
        loaded[stage] = len(list(worker.models or ()))
        await worker.stop()

    assert loaded == {"embedding": 1, "inference": 0}


def test_a_lane_is_bounded_in_each_topic_that_feeds_it(hosting: Callable[..., Worker]) -> None:
    worker = hosting("embedding", "inference")

    bounds = admission_bounds(worker.settings)

    assert len(bounds) == 2 * len(Lane)
    assert bounds["cortex.stages.embedding.critical"].max_records == 1000
    assert worker.lane_capacity(Lane.CRITICAL) == 2000
    worker.admission.take("cortex.stages.inference.low", records=3, size_bytes=30)
    assert worker.lane_depth(Lane.LOW) == 3


def with_file(settings: Settings, path: Path, clock: ManualClock) -> Worker:
    changed = settings.model_copy(update={"pipelines": PipelinesSettings(file=path)})
    return Worker(changed, clock=clock, instance="worker-0")


@pytest.mark.usefixtures("hosting")  # asks no cluster
async def test_a_pipeline_with_a_model_that_is_not_served_ends_the_start(
    settings: Settings, clock: ManualClock, tmp_path: Path
) -> None:
    path = tmp_path / "pipelines.yaml"
    path.write_text(PIPELINES.replace("MODEL", "nobody"), encoding="utf-8")
    worker = with_file(settings, path, clock)

    with pytest.raises(OperatorError, match=r"'own' \(.*pipelines.yaml:3\)"):
        await worker.start()
    await worker.stop()


def test_a_wrong_or_missing_file_is_refused_before_anything_starts(
    settings: Settings, clock: ManualClock, tmp_path: Path
) -> None:
    path = tmp_path / "pipelines.yaml"

    with pytest.raises(OperatorError, match="CORTEX_PIPELINES__FILE"):
        with_file(settings, path, clock)
    path.write_text("version: 1\n", encoding="utf-8")
    with pytest.raises(OperatorError, match="pipelines: Field required"):
        with_file(settings, path, clock)
