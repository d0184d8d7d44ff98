import pytest

from cortex_stream.errors import InvalidField, UnknownType
from cortex_stream.routing.route import Route, StageName, Task, decide_route
from schemas.requests import CLASSIFY, EMBED


@pytest.mark.parametrize(
    ("request_type", "task", "stages"),
    [
        (EMBED, "embedding", (StageName.EMBEDDING,)),
        (CLASSIFY, "embedding", (StageName.EMBEDDING, StageName.INFERENCE)),
        (CLASSIFY, "sequence-classification", (StageName.INFERENCE,)),
    ],
)
def test_the_type_and_the_models_task_decide_the_stages(
    request_type: str, task: Task, stages: tuple[StageName, ...]
) -> None:
    assert decide_route(request_type, model="m@1", task=task) == Route(stages, "m@1")


def test_a_classifier_cannot_embed() -> None:
    with pytest.raises(InvalidField, match="m@1 classifies and makes no vectors") as refused:
        decide_route(EMBED, model="m@1", task="sequence-classification")

    assert refused.value.field == "data.model"


@pytest.mark.parametrize("task", ["embedding", "sequence-classification"])
def test_an_unknown_type_is_refused_with_those_there_are(task: Task) -> None:
    with pytest.raises(UnknownType, match=f"{EMBED}, {CLASSIFY}") as refused:
        decide_route("cortex.nlp.sing.v1", model="m@1", task=task)

    assert refused.value.field == "type"
