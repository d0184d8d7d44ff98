from collections.abc import Callable
from dataclasses import dataclass

import pytest

from cortex_stream.errors import InvalidField, InvariantError, OperatorError, UnknownModel
from cortex_stream.routing.pipeline import (
    BUILT_IN,
    REALTIME,
    STANDARD,
    Pipeline,
    Version,
    check_models,
    choose_pipeline,
    decide_pipeline_route,
)
from cortex_stream.routing.route import StageName, Task
from schemas.priority import Lane
from schemas.requests import CLASSIFY, EMBED

EMBEDDING, INFERENCE = StageName.EMBEDDING, StageName.INFERENCE


@dataclass(frozen=True)
class Named:
    reference: str
    task: Task


MODELS = {
    "vectors": Named("vectors@1", "embedding"),
    "sorter": Named("sorter@1", "sequence-classification"),
}


def find(reference: str | None) -> Version:
    if reference not in MODELS:
        raise UnknownModel(f"no {reference}")
    return MODELS[reference]


def pipeline(
    name: str = "own",
    types: tuple[str, ...] = (EMBED, CLASSIFY),
    stages: tuple[StageName, ...] = (EMBEDDING, INFERENCE),
    *,
    lanes: tuple[Lane, ...] | None = None,
    tenants: tuple[str, ...] | None = None,
    model: str | None = None,
) -> Pipeline:
    return Pipeline(
        name,
        frozenset(types),
        stages,
        lanes=None if lanes is None else frozenset(lanes),
        tenants=None if tenants is None else frozenset(tenants),
        model=model,
        where="file.yaml:3",
    )


def test_critical_requests_go_the_realtime_way_and_the_others_the_standard_way() -> None:
    chosen = {lane: choose_pipeline(BUILT_IN, EMBED, lane=lane, tenant="t") for lane in Lane}

    assert chosen == {lane: REALTIME if lane is Lane.CRITICAL else STANDARD for lane in Lane}


def test_realtime_takes_100_at_once_and_30_s_a_stage_and_standard_waits_without_a_limit() -> None:
    assert (REALTIME.max_concurrent, set(REALTIME.timeouts_s.values())) == (100, {30.0})
    assert (STANDARD.max_concurrent, STANDARD.timeouts_s) == (None, {})


@pytest.mark.parametrize(
    ("own", "fits"),
    [
        (pipeline(types=(EMBED,)), True),
        (pipeline(types=(CLASSIFY,)), False),
        (pipeline(lanes=(Lane.HIGH, Lane.LOW)), True),
        (pipeline(lanes=(Lane.LOW,)), False),
        (pipeline(tenants=("acme",)), True),
        (pipeline(tenants=("other",)), False),
    ],
)
def test_the_first_pipeline_whose_type_priority_and_tenant_fit_answers(
    *, own: Pipeline, fits: bool
) -> None:
    chosen = choose_pipeline((own, *BUILT_IN), EMBED, lane=Lane.HIGH, tenant="acme")

    assert chosen is (own if fits else STANDARD)


def test_a_type_that_no_pipeline_knows_is_a_bug() -> None:
    with pytest.raises(InvariantError):
        choose_pipeline(BUILT_IN, "cortex.nlp.sing.v1", lane=Lane.LOW, tenant="t")


@pytest.mark.parametrize(
    ("first", "later", "hidden"),
    [
        (pipeline(), pipeline(lanes=(Lane.LOW,), tenants=("a",)), True),
        (pipeline(types=(EMBED,)), pipeline(), False),
        (pipeline(lanes=(Lane.LOW,)), pipeline(), False),
        (pipeline(lanes=(Lane.LOW,)), pipeline(lanes=(Lane.LOW, Lane.HIGH)), False),
        (pipeline(lanes=(Lane.LOW, Lane.HIGH)), pipeline(lanes=(Lane.LOW,)), True),
        (pipeline(tenants=("a",)), pipeline(), False),
        (pipeline(tenants=("a", "b")), pipeline(tenants=("a",)), True),
    ],
)
def test_a_pipeline_hides_a_later_one_that_asks_for_no_more(
    *, first: Pipeline, later: Pipeline, hidden: bool
) -> None:
    assert first.hides(later) is hidden


def test_the_models_task_decides_which_of_the_stages_run() -> None:
    def stages(model: str, request_type: str) -> tuple[StageName, ...]:
        return decide_pipeline_route(STANDARD, request_type, find(model)).stages

    assert stages("vectors", EMBED) == (EMBEDDING,)
    assert stages("vectors", CLASSIFY) == (EMBEDDING, INFERENCE)
    assert stages("sorter", CLASSIFY) == (INFERENCE,)


def test_a_model_that_needs_a_stage_the_pipeline_lacks_is_refused() -> None:
    own = pipeline(types=(CLASSIFY,), stages=(INFERENCE,))

    with pytest.raises(InvalidField, match="pipeline own does not have") as refused:
        decide_pipeline_route(own, CLASSIFY, find("vectors"))

    assert refused.value.field == "data.model"


@pytest.mark.parametrize(
    ("own", "what"),
    [
        (pipeline(model="gone"), "no gone"),
        (pipeline(model="sorter"), "makes no vectors"),
        (pipeline(types=(CLASSIFY,), stages=(INFERENCE,)), "does not have"),
    ],
)
def test_a_pipeline_whose_model_cannot_answer_is_refused_with_its_place(
    own: Pipeline, what: str
) -> None:
    with pytest.raises(OperatorError, match=what) as refused:
        check_models((own, *BUILT_IN), find, default="vectors")

    assert "'own' (file.yaml:3)" in str(refused.value)
    assert "CORTEX_MODELS__SERVE" in (refused.value.repair or "")


def checked(*own: Pipeline, default: str) -> Callable[[], None]:
    return lambda: check_models((*own, *BUILT_IN), find, default=default)


def test_pipelines_whose_models_can_answer_are_accepted() -> None:
    checked(pipeline(types=(CLASSIFY,), stages=(INFERENCE,), model="sorter"), default="vectors")()
    checked(default="sorter")()  # it cannot embed: then each embed request says so, as ever
