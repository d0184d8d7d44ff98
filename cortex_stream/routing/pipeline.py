"""Pipelines: which requests are answered how, with which model and within which limits."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from cortex_stream.errors import CortexError, InvalidField, InvariantError, OperatorError
from cortex_stream.routing.route import Route, StageName, Task, decide_route
from schemas.priority import Lane
from schemas.requests import DATA_BY_TYPE

DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_MAX_CONCURRENT: Final = 100
STANDARD_NAME: Final = "standard"


class Version(Protocol):
    """What a route needs to know of a model version."""

    @property
    def reference(self) -> str:
        """`name@version`."""
        ...

    @property
    def task(self) -> Task:
        """What it was trained for."""
        ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How the requests that it answers are answered.

    Attributes:
        types: the request types it answers.
        lanes: the lanes it answers; None: all.
        tenants: for whom; None: everybody.
        stages: those that its routes may use, in order.
        model: answers requests that name none; None: the worker's default.
        timeouts_s: how long one try may take in a stage, waiting for a runner included.
        max_concurrent: work items of one lane that a worker has in the stages at once; the others
            wait before the first. None: as many as the lane admits.
        where: the place of its definition, for messages.
    """

    name: str
    types: frozenset[str]
    stages: tuple[StageName, ...]
    lanes: frozenset[Lane] | None = None
    tenants: frozenset[str] | None = None
    model: str | None = None
    timeouts_s: Mapping[StageName, float] = field(default_factory=dict)
    max_concurrent: int | None = None
    where: str = "built in"

    def answers(self, request_type: str, lane: Lane, tenant: str) -> bool:
        """Tell whether such a request is for this pipeline."""
        return (
            request_type in self.types
            and (self.lanes is None or lane in self.lanes)
            and (self.tenants is None or tenant in self.tenants)
        )

    def hides(self, later: "Pipeline") -> bool:
        """Tell whether this one, standing first, answers everything that `later` would."""
        return (
            later.types <= self.types
            and (self.lanes is None or (later.lanes is not None and later.lanes <= self.lanes))
            and (
                self.tenants is None
                or (later.tenants is not None and later.tenants <= self.tenants)
            )
        )


# No limit of its own: its items wait in the scheduler, among thousands, where batches are cut by
# length and every lane and tenant gets its share. What waits there is not late; a run that hangs is
# given up by CORTEX_INFERENCE__RUN_TIMEOUT_S, and what nobody waits for ends by its deadline.
STANDARD: Final = Pipeline(STANDARD_NAME, frozenset(DATA_BY_TYPE), tuple(StageName))

REALTIME: Final = Pipeline(
    "realtime",
    frozenset(DATA_BY_TYPE),
    tuple(StageName),
    lanes=frozenset({Lane.CRITICAL}),
    timeouts_s=dict.fromkeys(StageName, DEFAULT_TIMEOUT_S),
    max_concurrent=DEFAULT_MAX_CONCURRENT,
)

BUILT_IN: Final = (REALTIME, STANDARD)


def choose_pipeline(
    pipelines: Iterable[Pipeline], request_type: str, *, lane: Lane, tenant: str
) -> Pipeline:
    """Return the first pipeline that answers such a request; the last one answers every known type."""
    for pipeline in pipelines:
        if pipeline.answers(request_type, lane, tenant):
            return pipeline
    raise InvariantError(f"no pipeline for {request_type}, not even {STANDARD_NAME}; this is a bug")


def decide_pipeline_route(pipeline: Pipeline, request_type: str, version: Version) -> Route:
    """Return the route of `request_type` through `pipeline` when `version` answers.

    Raises:
        InvalidField: the model cannot answer the type, or needs a stage the pipeline lacks.
        UnknownType: no route exists.
    """
    route = decide_route(request_type, model=version.reference, task=version.task)
    for stage in route.stages:
        if stage not in pipeline.stages:
            raise InvalidField(
                f"model {version.reference} answers through stage {stage}, which pipeline"
                f" {pipeline.name} does not have; name another model",
                field="data.model",
            )
    return route


def check_models(
    pipelines: Iterable[Pipeline], find: Callable[[str | None], Version], *, default: str
) -> None:
    """Refuse pipelines whose own requests, those that name no model, would all be refused.

    Raises:
        OperatorError: the first such; names where it is defined and what to change.
    """
    for pipeline in pipelines:
        named = pipeline.model or default
        for request_type in sorted(pipeline.types):
            try:
                decide_pipeline_route(pipeline, request_type, find(named))
            except CortexError as error:
                # A default that cannot answer a type is no fault of a built-in pipeline.
                if pipeline.model is None and pipeline in BUILT_IN:
                    continue
                raise OperatorError(
                    f"checking pipeline {pipeline.name!r} ({pipeline.where}): with model {named!r}"
                    f" it cannot answer {request_type}: {error}",
                    repair="name a model that this worker serves (CORTEX_MODELS__SERVE) and whose"
                    " task fits the pipeline's types and stages",
                ) from error
