"""The ordered stages of a request type."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from cortex_stream.errors import InvalidField, UnknownType
from schemas.requests import CLASSIFY, DATA_BY_TYPE, EMBED

Task = Literal["embedding", "sequence-classification"]


class StageName(StrEnum):
    """The stages a route is made of; validation is the way into every route."""

    EMBEDDING = "embedding"
    INFERENCE = "inference"


@dataclass(frozen=True, slots=True)
class Route:
    """Which stages run, in order, with which model.

    Attributes:
        model: `name@version` of the model version that answers.
    """

    stages: tuple[StageName, ...]
    model: str


def decide_route(request_type: str, *, model: str, task: Task) -> Route:
    """Return the route of `request_type` when `model`, which is trained for `task`, answers it.

    Classifying with an embedding model embeds texts and labels and compares them; a model trained
    to classify needs no embedding.

    Raises:
        InvalidField: the model cannot answer requests of this type.
        UnknownType: no route exists.
    """
    match request_type, task:
        case (t, "embedding") if t == EMBED:
            return Route((StageName.EMBEDDING,), model)
        case (t, "embedding") if t == CLASSIFY:
            return Route((StageName.EMBEDDING, StageName.INFERENCE), model)
        case (t, "sequence-classification") if t == CLASSIFY:
            return Route((StageName.INFERENCE,), model)
        case (t, _) if t == EMBED:
            raise InvalidField(
                f"model {model} classifies and makes no vectors; name an embedding model",
                field="data.model",
            )
    raise unknown_type(request_type)


def unknown_type(request_type: str) -> UnknownType:
    """Return the error that names every type there is."""
    return UnknownType(
        f"no route for type {request_type!r}; this release answers {', '.join(DATA_BY_TYPE)}",
        field="type",
    )
